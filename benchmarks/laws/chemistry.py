"""Laws of chemistry."""

ATKINS = "Atkins, de Paula, Physical Chemistry"

LAWS = {
    "ideal gas": (
        "8.314*n*T/V",
        {"n": ("mol", 0.1, 10, "uniform"), "T": ("K", 250, 500, "uniform"), "V": ("m**3", 0.001, 0.1, "log")},
        "Pa",
        ATKINS,
    ),
    "van der Waals": (
        "8.314*T/(V - 4.27e-5) - 0.364/V**2",
        {"T": ("K", 280, 500, "uniform"), "V": ("m**3/mol", 2e-4, 5e-3, "log")},
        "Pa",
        ATKINS,
    ),
    "Arrhenius": ("1e10*exp(-E/(8.314*T))", {"E": ("J/mol", 4e4, 9e4, "uniform"), "T": ("K", 280, 400, "uniform")}, "1/s", ATKINS),
    "Nernst": (
        "E + 8.314*T/(96485*z)*log(a/b)",
        {
            "E": ("V", -1, 1, "uniform"),
            "T": ("K", 280, 350, "uniform"),
            "z": ("1", 1, 3, "integer"),
            "a": ("mol/l", 0.01, 1, "log"),
            "b": ("mol/l", 0.01, 1, "log"),
        },
        "V",
        ATKINS,
    ),
    "Lennard-Jones": ("3.2*((1.1/r)**12 - (1.1/r)**6)", {"r": ("nm", 1.0, 3.0, "uniform")}, "kJ/mol", ATKINS),
    "Langmuir": ("K*p/(1 + K*p)", {"K": ("1/bar", 0.1, 10, "log"), "p": ("bar", 0.1, 10, "log")}, "1", ATKINS),
    "Beer-Lambert": (
        "I*exp(-e*c*d)",
        {
            "I": ("W", 0.5, 2, "uniform"),
            "e": ("l/mol/cm", 100, 1000, "uniform"),
            "c": ("mol/l", 1e-4, 1e-3, "uniform"),
            "d": ("cm", 0.5, 2, "uniform"),
        },
        "W",
        ATKINS,
    ),
    "first order": (
        "c*exp(-k*t)",
        {"c": ("mol/l", 0.1, 2, "uniform"), "k": ("1/s", 0.01, 0.1, "uniform"), "t": ("s", 0, 60, "uniform")},
        "mol/l",
        ATKINS,
    ),
    "second order": (
        "c/(1 + k*t*c)",
        {"c": ("mol/l", 0.1, 2, "uniform"), "k": ("l/mol/s", 0.01, 0.5, "uniform"), "t": ("s", 0, 60, "uniform")},
        "mol/l",
        ATKINS,
    ),
    "Debye-Hueckel": ("exp(-1.172*z**2*sqrt(I))", {"z": ("1", 1, 3, "integer"), "I": ("mol/l", 1e-4, 0.02, "log")}, "1", ATKINS),
    "Clausius-Clapeyron": (
        "p*exp(L/8.314*(1/S - 1/T))",
        {
            "p": ("Pa", 1e3, 1e5, "log"),
            "L": ("J/mol", 2e4, 5e4, "uniform"),
            "S": ("K", 280, 320, "uniform"),
            "T": ("K", 280, 320, "uniform"),
        },
        "Pa",
        ATKINS,
    ),
}
