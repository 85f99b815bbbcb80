"""What is done to a network: functions that take one."""
