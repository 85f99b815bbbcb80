"""Operations on a network: functions that take one as their first argument."""
