"""How a panel account comes in: lockouts, forms and pages of the sign-in."""
