"""Make the sample data anew, beside this script: ``python sample_data/make.py``."""

from pathlib import Path

from geotranslate.sample import make_sample

if __name__ == "__main__":
    for path in make_sample(Path(__file__).parent).values():
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
