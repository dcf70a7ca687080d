"""Scripts of array jobs: SLURM, and Kubernetes's indexed jobs."""

import json
import shlex

from keras_attn._checks import one_of, positive_integer

SLURM = """\
#!/bin/bash
#SBATCH --job-name=keras-attn-{task}
#SBATCH --array=1-{parts}
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --requeue
# For GPUs: #SBATCH --gpus-per-task=1
set -e
cd {folder}
exec {command} --part "${{SLURM_ARRAY_TASK_ID}}/{parts}"
"""
# Paths are inside the container: a volume that all pods share.
KUBERNETES = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: keras-attn-{task}
spec:
  completions: {parts}
  parallelism: {parts}
  completionMode: Indexed
  backoffLimitPerIndex: 5
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: keras-attn
          # An image with keras-attn[train] installed.
          image: IMAGE
          workingDir: {folder}
          command: ["/bin/sh", "-c"]
          args:
            - >-
              exec {command}
              --part "$((JOB_COMPLETION_INDEX + 1))/{parts}"
          resources:
            requests: {{cpu: "4", memory: 8Gi}}
            limits: {{memory: 8Gi}}
          volumeMounts:
            - {{name: data, mountPath: {folder}}}
      volumes:
        - name: data
          persistentVolumeClaim:
            claimName: CLAIM
"""
TEMPLATES = {"slurm": SLURM, "kubernetes": KUBERNETES}


def manifest(kind, words, parts, folder):
    """The text of an array job, each part of which computes some shards of a plan.

    Args:
        kind: `"slurm"` or `"kubernetes"`.
        words: Words of a command `bulk TASK ...`.
        parts: Number of parts.
        folder: Working folder, for relative paths.
    """
    one_of("manifest", kind, tuple(TEMPLATES))
    quoted = shlex.quote if kind == "slurm" else json.dumps
    return TEMPLATES[kind].format(
        task=words[1],
        parts=positive_integer("parts", parts),
        command=shlex.join(["keras-attn", *words]),
        folder=quoted(str(folder)),
    )
