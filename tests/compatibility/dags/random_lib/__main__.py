import sys

from .author import random_dag

print(*[random_dag(int(seed)).source for seed in sys.argv[1:]], sep="\n")
