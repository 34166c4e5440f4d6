"""One flat folder per service; services meet only in payflow.contracts."""
