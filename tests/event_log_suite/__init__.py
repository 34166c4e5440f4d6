"""What every event log promises, on PostgreSQL and on Kafka alike: one suite, run over each."""

from tests.event_log_suite.delivery import Delivery
from tests.event_log_suite.failing import Failing
from tests.event_log_suite.helpers import until_letters, until_retried
from tests.event_log_suite.naming import Naming
from tests.event_log_suite.operating import Operating

__all__ = ["EventLogSuite", "until_letters", "until_retried"]


class EventLogSuite(Delivery, Failing, Naming, Operating):
    """Subclass it as `Test...` beside a fixture `log`."""
