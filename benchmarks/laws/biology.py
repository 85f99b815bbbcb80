"""Laws of biology."""

MURRAY = "Murray, Mathematical Biology"
CORNISH = "Cornish-Bowden, Fundamentals of Enzyme Kinetics"

LAWS = {
    "Michaelis-Menten": (
        "V*S/(K + S)",
        {"V": ("mmol/s", 0.5, 5, "uniform"), "S": ("mmol/l", 0.1, 20, "log"), "K": ("mmol/l", 0.5, 5, "uniform")},
        "mmol/s",
        CORNISH,
    ),
    "competitive inhibition": (
        "3.2*S/(1.7*(1 + I/0.8) + S)",
        {"S": ("mmol/l", 0.1, 10, "uniform"), "I": ("mmol/l", 0, 3, "uniform")},
        "mmol/s",
        CORNISH,
    ),
    "substrate inhibition": ("5*S/(1 + S + S**2/8)", {"S": ("mmol/l", 0.1, 30, "uniform")}, "mmol/s", CORNISH),
    "Hill": ("S**4/(16 + S**4)", {"S": ("mmol/l", 0.2, 8, "uniform")}, "1", CORNISH),
    "logistic growth": ("9.5/(1 + exp(-0.9*(t - 4)))", {"t": ("h", 0, 10, "uniform")}, "g/l", MURRAY),
    "Gompertz": ("8*exp(-5*exp(-0.7*t))", {"t": ("h", 0, 10, "uniform")}, "g", MURRAY),
    "Kleiber": ("3.4*m**0.75", {"m": ("kg", 0.02, 4000, "log")}, "W", "Kleiber, The Fire of Life"),
    "Lotka-Volterra rate": ("1.1*x - 0.4*x*y", {"x": ("1", 0.1, 10, "uniform"), "y": ("1", 0.1, 10, "uniform")}, "1/year", MURRAY),
    "Holling": ("2*N/(1 + 2*0.3*N)", {"N": ("1/m**2", 0.1, 30, "uniform")}, "1/day", MURRAY),
    "Goldman potential": (
        "25.7*log((4 + P*140)/(140 + P*12))",
        {"P": ("1", 0.01, 10, "log")},
        "mV",
        "Hille, Ion Channels of Excitable Membranes",
    ),
    "body surface": (
        "0.007184*w**0.425*h**0.725",
        {"w": ("kg", 40, 120, "uniform"), "h": ("cm", 140, 200, "uniform")},
        "m**2",
        "Du Bois, Du Bois 1916",
    ),
}
