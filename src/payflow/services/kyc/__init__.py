"""Who a customer was shown to be, when, and how well."""
