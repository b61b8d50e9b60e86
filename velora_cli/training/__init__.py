"""Commands of training: dataset, weights, pretrain, train, eval, import-checkpoint."""
