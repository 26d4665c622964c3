"""Rows with stable names: sets, held-out splits, disjoint shards, exclusions."""

from fedunlearn.data.exclusions import MIRROR as MIRROR
from fedunlearn.data.exclusions import Exclusions as Exclusions
from fedunlearn.data.exclusions import Selection as Selection
from fedunlearn.data.folder import data_folder as data_folder
from fedunlearn.data.folder import find as find
from fedunlearn.data.rows import Rows as Rows
from fedunlearn.data.sets import SETS as SETS
from fedunlearn.data.sets import open_rows as open_rows
from fedunlearn.data.sets import open_site as open_site
from fedunlearn.data.shards import SHARDINGS as SHARDINGS
from fedunlearn.data.shards import held_out as held_out
from fedunlearn.data.shards import shard as shard
from fedunlearn.data.site import SiteData as SiteData
