-- With Kafka, this service publishes the outbox, in turn with notification; and it forgets which events were handled.

GRANT payflow_event_relay TO payflow_audit;
GRANT EXECUTE ON FUNCTION event_log.forget_handled(timestamptz, integer) TO payflow_audit;
