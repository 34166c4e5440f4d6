"""All that one service may know of another: operations, messages, events, topics and problem types."""
