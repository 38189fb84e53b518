"""skorch's NeuralNetClassifier as its documentation writes it: fit, a pipeline, a grid search."""

import json

import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochScoring
from torch import nn

from stopwatch import Stopwatch


class MyModule(nn.Module):
    """Two layers with dropout."""

    def __init__(self, num_units=10, nonlin=nn.ReLU()):
        super().__init__()
        self.dense0 = nn.Linear(20, num_units)
        self.nonlin = nonlin
        self.dropout = nn.Dropout(0.5)
        self.dense1 = nn.Linear(num_units, num_units)
        self.output = nn.Linear(num_units, 2)

    def forward(self, X, **kwargs):
        X = self.nonlin(self.dense0(X))
        X = self.dropout(X)
        X = self.nonlin(self.dense1(X))
        return self.output(X)


class Times(Callback):
    """Notes the end of each batch."""

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            watch.step()


watch = Stopwatch()
torch.manual_seed(1)
X, y = make_classification(5000, 20, n_informative=10, random_state=0)
X = X.astype(np.float32)
y = y.astype(np.int64)
net = NeuralNetClassifier(
    MyModule, max_epochs=120, criterion=nn.CrossEntropyLoss, lr=0.1, iterator_train__shuffle=True, verbose=0,
    callbacks=[EpochScoring(scoring="roc_auc", lower_is_better=False), Times()],
)  # fmt: skip
pipe = Pipeline([("scale", StandardScaler()), ("net", net)])
pipe.fit(X, y)
losses = net.history[:, "train_loss"] + net.history[:, "valid_loss"]
net.set_params(max_epochs=10)
params = {"lr": [0.05, 0.1], "module__num_units": [10, 20]}
search = GridSearchCV(net, params, refit=False, cv=3, scoring="accuracy")
search.fit(X, y)
watch.write()
print("LOSSES", json.dumps([*losses, *search.cv_results_["mean_test_score"].tolist()]))
