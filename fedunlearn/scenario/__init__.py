"""Topologies: a YAML file that says who holds what and which models are born from which."""

from fedunlearn.scenario.afar import extend_afar as extend_afar
from fedunlearn.scenario.afar import train_afar as train_afar
from fedunlearn.scenario.asked import request_of as request_of
from fedunlearn.scenario.assess import assess as assess
from fedunlearn.scenario.assess import assessed as assessed
from fedunlearn.scenario.assess import keep_assessed as keep_assessed
from fedunlearn.scenario.assess import line_of as line_of
from fedunlearn.scenario.build import check_samples as check_samples
from fedunlearn.scenario.build import open_site_data as open_site_data
from fedunlearn.scenario.files import find_topology as find_topology
from fedunlearn.scenario.files import load as load
from fedunlearn.scenario.files import of_family as of_family
from fedunlearn.scenario.files import read_plain as read_plain
from fedunlearn.scenario.here import workers_here as workers_here
from fedunlearn.scenario.places import backend_of as backend_of
from fedunlearn.scenario.places import open_worker as open_worker
from fedunlearn.scenario.places import retrained as retrained
from fedunlearn.scenario.places import sites_away as sites_away
from fedunlearn.scenario.schema import Scenario as Scenario
from fedunlearn.scenario.site import Site as Site
from fedunlearn.scenario.site import open_site as open_site
from fedunlearn.scenario.site import open_site_in as open_site_in
from fedunlearn.scenario.staffing import workers as workers
from fedunlearn.scenario.train import extend as extend
from fedunlearn.scenario.train import reference as reference
from fedunlearn.scenario.train import train as train
