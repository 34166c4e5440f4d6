"""How much of everything a rate of payments needs, computed from what a payment was measured to cost."""

from payflow.run.capacity.model import Capacity, Costs, Database, Events, Service, Wanted, capacity_for, measured_costs

__all__ = ["Capacity", "Costs", "Database", "Events", "Service", "Wanted", "capacity_for", "measured_costs"]
