"""PostgreSQL and Valkey as part of Payflow: real servers from locked packages, on sockets inside the instance."""
