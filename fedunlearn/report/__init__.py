"""One ledger line as a page for people who were not there: what was asked, found, done, tested, and what is still open."""

from fedunlearn.report.document import document as document
from fedunlearn.report.history import edited_before as edited_before
from fedunlearn.report.page import page as page
from fedunlearn.report.tables import tables as tables
