"""Targets: the scalar function of the model's output that is explained, one score per image."""

from seewhy.targets.base import Combined as Combined
from seewhy.targets.base import FunctionScore as FunctionScore
from seewhy.targets.base import ResolvedTarget as ResolvedTarget
from seewhy.targets.base import Target as Target
from seewhy.targets.base import TargetContext as TargetContext
from seewhy.targets.boxes import BoxScore as BoxScore
from seewhy.targets.class_scores import log_probabilities as log_probabilities
from seewhy.targets.class_scores import logits as logits
from seewhy.targets.class_scores import probabilities as probabilities
from seewhy.targets.classes import ClassLogProbability as ClassLogProbability
from seewhy.targets.classes import ClassProbability as ClassProbability
from seewhy.targets.classes import ClassScore as ClassScore
from seewhy.targets.classes import Contrast as Contrast
from seewhy.targets.classes import TopScore as TopScore
from seewhy.targets.dense import RegionScore as RegionScore
from seewhy.targets.names import ClassSpec as ClassSpec
from seewhy.targets.names import Labels as Labels
from seewhy.targets.names import class_index as class_index
from seewhy.targets.names import class_name as class_name
from seewhy.targets.names import find_class as find_class
from seewhy.targets.parsing import TargetSpec as TargetSpec
from seewhy.targets.parsing import as_targets as as_targets
from seewhy.targets.similarity import Similarity as Similarity
from seewhy.targets.similarity import TextScore as TextScore
from seewhy.targets.values import OutputScore as OutputScore
from seewhy.targets.values import ValueScore as ValueScore
