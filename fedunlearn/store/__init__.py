"""Where weights and the story of what was done are kept. The formats are in FORMAT.md beside this file."""

from fedunlearn.store.bank import Bank as Bank
from fedunlearn.store.bank import Banked as Banked
from fedunlearn.store.check import Checked as Checked
from fedunlearn.store.check import check_store as check_store
from fedunlearn.store.check import noting as noting
from fedunlearn.store.files import write_atomically as write_atomically
from fedunlearn.store.ledger import Ledger as Ledger
from fedunlearn.store.line import Line as Line
from fedunlearn.store.sweep import Swept as Swept
from fedunlearn.store.sweep import sweep as sweep
from fedunlearn.store.versions import Store as Store
from fedunlearn.store.versions import Version as Version
