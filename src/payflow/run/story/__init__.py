"""The story that `payflow demo` plays: what a customer, another bank and an auditor see, over the public API alone."""
