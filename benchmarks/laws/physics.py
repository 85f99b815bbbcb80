"""Laws of physics."""

HALLIDAY = "Halliday, Resnick, Walker, Fundamentals of Physics"
JACKSON = "Jackson, Classical Electrodynamics"
WHITE = "White, Fluid Mechanics"

LAWS = {
    "kepler": ("2*pi*sqrt(a**3/(6.6743e-11*M))", {"a": ("m", 5e10, 5e12, "log"), "M": ("kg", 1e29, 1e31, "log")}, "s", HALLIDAY),
    "coulomb": (
        "8.98755e9*q*Q/r**2",
        {"q": ("C", 1e-9, 1e-6, "log"), "Q": ("C", 1e-9, 1e-6, "log"), "r": ("m", 0.01, 1, "log")},
        "N",
        HALLIDAY,
    ),
    "free fall": ("h - 9.81*t**2/2", {"h": ("m", 20, 100, "uniform"), "t": ("s", 0, 2, "uniform")}, "m", HALLIDAY),
    "projectile range": ("v**2*sin(2*a)/9.81", {"v": ("m/s", 5, 50, "uniform"), "a": ("rad", 0.1, 1.5, "uniform")}, "m", HALLIDAY),
    "lens": ("1/(1/f - 1/d)", {"f": ("m", 0.02, 0.1, "uniform"), "d": ("m", 0.2, 3, "uniform")}, "m", HALLIDAY),
    "parallel resistors": ("R*S/(R + S)", {"R": ("ohm", 10, 1e4, "log"), "S": ("ohm", 10, 1e4, "log")}, "ohm", HALLIDAY),
    "resonance": ("1/(2*pi*sqrt(L*C))", {"L": ("H", 1e-6, 1e-3, "log"), "C": ("F", 1e-12, 1e-9, "log")}, "Hz", HALLIDAY),
    "impedance": (
        "sqrt(R**2 + (2*pi*f*L)**2)",
        {"R": ("ohm", 1, 100, "uniform"), "f": ("Hz", 50, 500, "uniform"), "L": ("H", 0.01, 0.1, "uniform")},
        "ohm",
        HALLIDAY,
    ),
    "discharge": (
        "U*exp(-t/(R*C))",
        {"U": ("V", 1, 12, "uniform"), "t": ("s", 0, 2, "uniform"), "R": ("ohm", 1e5, 1e6, "uniform"), "C": ("F", 1e-6, 3e-6, "uniform")},
        "V",
        HALLIDAY,
    ),
    "damped oscillation": ("exp(-0.3*t)*cos(2*t + 0.5)", {"t": ("s", 0, 10, "uniform")}, "1", HALLIDAY),
    "relativistic energy": (
        "m*8.98755e16*(1/sqrt(1 - v**2/8.98755e16) - 1)",
        {"m": ("kg", 1, 10, "uniform"), "v": ("m/s", 3e7, 2.4e8, "uniform")},
        "J",
        HALLIDAY,
    ),
    "Doppler": ("f*343/(343 - v)", {"f": ("Hz", 100, 2000, "uniform"), "v": ("m/s", -60, 60, "uniform")}, "Hz", HALLIDAY),
    "Bernoulli": (
        "p + rho*v**2/2 + 9.81*rho*h",
        {
            "p": ("Pa", 1e5, 2e5, "uniform"),
            "rho": ("kg/m**3", 500, 1500, "uniform"),
            "v": ("m/s", 0, 10, "uniform"),
            "h": ("m", 0, 10, "uniform"),
        },
        "Pa",
        WHITE,
    ),
    "Poiseuille": (
        "pi*p*r**4/(8*mu*L)",
        {"p": ("Pa", 10, 1e3, "log"), "r": ("m", 1e-4, 1e-2, "log"), "mu": ("Pa*s", 1e-4, 1e-2, "log"), "L": ("m", 0.1, 1, "uniform")},
        "m**3/s",
        WHITE,
    ),
    "radiation": (
        "5.670374e-8*A*(T**4 - S**4)",
        {"A": ("m**2", 0.1, 2, "uniform"), "T": ("K", 300, 1000, "uniform"), "S": ("K", 250, 300, "uniform")},
        "W",
        HALLIDAY,
    ),
    "Planck": ("x**3/(exp(x) - 1)", {"x": ("1", 0.1, 10, "uniform")}, "1", HALLIDAY),
    "Snell": ("asin(sin(a)/n)", {"a": ("rad", 0.05, 1.5, "uniform"), "n": ("1", 1.2, 2.4, "uniform")}, "rad", HALLIDAY),
    "dipole potential": (
        "p*cos(a)/(4*pi*8.854e-12*r**2)",
        {"p": ("C*m", 1e-30, 1e-28, "log"), "a": ("rad", 0, 3.14, "uniform"), "r": ("m", 1e-10, 1e-8, "log")},
        "V",
        JACKSON,
    ),
}
