"""Metrics: functions of tensors, and the store that gathers what they need."""
