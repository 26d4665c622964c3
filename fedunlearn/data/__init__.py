"""Rows with stable names: sets, held-out splits, disjoint shards, exclusions."""

from fedunlearn.data.exclusions import MIRROR as MIRROR, Exclusions as Exclusions, Selection as Selection
from fedunlearn.data.folder import data_folder as data_folder, find as find
from fedunlearn.data.rows import Rows as Rows
from fedunlearn.data.sets import SETS as SETS, open_rows as open_rows, open_site as open_site
from fedunlearn.data.shards import SHARDINGS as SHARDINGS, held_out as held_out, shard as shard
from fedunlearn.data.site import SiteData as SiteData
