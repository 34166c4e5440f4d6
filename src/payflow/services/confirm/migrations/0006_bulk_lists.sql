-- A customer's bulk orders are listed, newest first.

CREATE INDEX bulk_orders_of_a_customer ON bulk_order (customer_id, bulk_id);
