"""Measurements of Mixtral-8x7B in AdapMoE's released code, PKU-SEC-Lab/AdapMoE at 2cfe8df: facts, quoted."""

EXPERTS = 8
PREFETCHES = 588
# right guesses of one expert, of 588, by layer; and the share of tokens with one expert at T = 0.005, as the allocation uses it
RIGHT = [
    0, 333, 424, 464, 509, 505, 488, 494, 499, 471, 528, 528, 525, 535, 544, 518,
    538, 552, 532, 517, 515, 525, 517, 515, 522, 520, 542, 537, 521, 529, 531, 500,
]  # fmt: skip
SINGLE = [
    0.000019, 0.034755, 0.004884, 0.000940, 0.000376, 0.002507, 0.007886, 0.034135,
    0.034509, 0.049134, 0.012986, 0.019571, 0.029581, 0.005487, 0.015525, 0.028414,
    0.063888, 0.070999, 0.140717, 0.280264, 0.298669, 0.365106, 0.414477, 0.355607,
    0.495191, 0.520984, 0.547891, 0.618038, 0.779979, 0.883992, 0.975375, 0.857713,
]  # fmt: skip
# threshold T -> mean share of tokens with one expert; right answers of 14,042 on MMLU
SHARE = {
    "0": "0",
    "0.001": "0.0830",
    "0.003": "0.1829",
    "0.005": "0.2576",
    "0.007": "0.3091",
    "0.01": "0.3647",
    "0.013": "0.4099",
}
QUESTIONS = 14042
RIGHT_ANSWERS = {"0": 9743, "0.001": 9753, "0.003": 9754, "0.005": 9751, "0.007": 9752, "0.01": 9737, "0.013": 9731}
