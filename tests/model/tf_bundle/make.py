"""How `tiny.index` and `tiny.data-00000-of-00001` were made, with TensorFlow 2.21.0:

python tests/model/tf_bundle/make.py
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
AVERAGED = "/ExponentialMovingAverage"

with tf.Graph().as_default(), v1.Session() as session:
    variables = {
        "global_step": np.int64(7),
        "tiny/stem/conv2d/kernel": np.arange(3 * 3 * 2 * 4, dtype="f4").reshape(3, 3, 2, 4),
        "tiny/stem/conv2d/kernel" + AVERAGED: -np.arange(72, dtype="f4").reshape(3, 3, 2, 4),
        "tiny/blocks_0/depthwise_conv2d/depthwise_kernel": np.arange(20, dtype="f4").reshape(
            5, 1, 4, 1
        ),
        "tiny/blocks_0/se/conv2d/bias": np.array([0.5, -1.5], "f2"),
        "tiny/blocks_0/tpu_batch_normalization/gamma": np.array([1e300, -2.25], "f8"),
        "tiny/blocks_0/tpu_batch_normalization/beta": tf.constant([3.0, -0.15625], tf.bfloat16),
        "tiny/head/dense/kernel": np.arange(6, dtype="f4").reshape(2, 3),
        "tiny/head/dense/kernel/RMSProp": np.zeros((2, 3), "f4"),
        "tiny/head/dense/bias": np.zeros(0, "f4"),
    }
    made = [
        v1.get_variable(name, initializer=value, use_resource=False)
        for name, value in variables.items()
    ]
    session.run(v1.global_variables_initializer())
    v1.train.Saver(made).save(
        session, str(Path(__file__).with_name("tiny")), write_meta_graph=False, write_state=False
    )
