"""A made-up landscape, seen by a radar and by an optical sensor: data to try geotranslate on.

One seed draws relief, a river, lakes, woods, fields, towns and roads on one fine map grid. Both
sensors look at that map, each on its own grid, so that a radar scene and an optical scene show the
same ground without sharing a pixel. Nothing here was measured; the coordinates only lend the data
a place on the globe, on the border of two UTM zones.
"""

from geotranslate.sample.files import make_sample, sample_paths

__all__ = ["make_sample", "sample_paths"]
