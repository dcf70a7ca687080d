"""When to stop: exit tables, rules, policies."""
