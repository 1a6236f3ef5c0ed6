"""The former name of :mod:`dupmae.kernels`, by which the code in older models' folders finds the fast kernels."""

from dupmae.kernels import linear_cross_entropy as linear_cross_entropy
from dupmae.kernels import linear_max_pool as linear_max_pool
from dupmae.kernels import linear_max_pool_packed as linear_max_pool_packed
from dupmae.kernels import weighted_linear_cross_entropy as weighted_linear_cross_entropy
