"""Where weights and the story of what was done are kept. The formats are in FORMAT.md beside this file."""

from fedunlearn.store.bank import Bank as Bank, Banked as Banked
from fedunlearn.store.check import Checked as Checked, check_store as check_store, noting as noting
from fedunlearn.store.files import write_atomically as write_atomically
from fedunlearn.store.ledger import Ledger as Ledger
from fedunlearn.store.line import Line as Line
from fedunlearn.store.sweep import Swept as Swept, sweep as sweep
from fedunlearn.store.versions import Store as Store, Version as Version
