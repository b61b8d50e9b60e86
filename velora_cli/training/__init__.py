"""Commands of training: dataset, pretrain, train, eval, import-checkpoint."""
