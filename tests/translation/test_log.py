from geotranslate.translation.log import Log, read_log


def test_a_log_is_cut_back_to_whole_rows_of_an_update(tmp_path):
    log = Log(tmp_path / "log.csv")
    for update in (10, 20, 30):
        log.write(["update", "d", "psnr"], {"update": update, "d": update / 7})
    with log.path.open("a") as file:
        file.write("2")
    log.cut_back(20)
    assert log.path.read_text() == "update,d,psnr\n10,1.428571,\n20,2.857143,\n"
    assert read_log(log.path)[1] == {"update": 20.0, "d": 2.857143}
    log.cut_back(0)
    assert not log.path.exists()
