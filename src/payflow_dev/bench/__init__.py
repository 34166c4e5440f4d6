"""`payflow bench`: drives payments through a whole instance, compares with pgbench, and checks the money afterwards."""
