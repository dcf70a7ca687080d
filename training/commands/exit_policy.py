"""When classifiers with early exits stop."""

from keras_attn.training.commands.arguments import (
    add_data,
    add_json,
    add_model,
    add_output,
    print_result,
)


def add(command):
    action = command.group(
        "exit-policy", "when to stop: policies for classifiers with early exits"
    )

    added = action(fit, "fit the best policy of each budget")
    added.add_argument("table", metavar="TABLE.npz")
    add_output(added, "the policies", metavar="POLICY.json", required=True)
    added.add_argument("--points", type=int, default=40, help="number of budgets (40)")
    add_json(added)

    added = action(evaluate, "its cost and accuracy")
    added.add_argument("policy", metavar="POLICY.json")
    added.add_argument("table", metavar="TABLE.npz")
    added.add_argument("--picture", metavar="PNG", help="draw the curve")
    add_json(added)

    added = action(judge, "fit on halves, judge on others")
    added.add_argument("table", metavar="TABLE.npz")
    added.add_argument("--seeds", type=int, default=5, help="random halves (5)")
    added.add_argument("--results", default="results", help="folder (results)")

    added = action(table, "run all exits on a data set")
    _add_early_exit(added)
    add_output(added, "the table", metavar="TABLE.npz", required=True)
    add_data(added, on_corrupt=True)
    added.add_argument(
        "--split", choices=("train", "validation", "test"), default="validation"
    )

    added = action(model, "write a model that exits early")
    _add_early_exit(added)
    added.add_argument("--policy", required=True, metavar="POLICY.json")
    added.add_argument("--budget", required=True, type=float, help="mean cost")
    add_output(added, "the model", metavar="MODEL.keras", required=True)


def _add_early_exit(added):
    add_model(added, of_others=False)
    added.add_argument(
        "--resized",
        required=True,
        metavar="WORKDIR|MODEL.keras",
        help="network of the resized image",
    )


def fit(arguments):
    from keras_attn.training.early_exit import policy

    summary = policy.fit(arguments.table, arguments.output, arguments.points)
    print_result(arguments, summary, policy.format_fit)


def evaluate(arguments):
    from keras_attn.training.early_exit import policy

    points = policy.evaluate(arguments.policy, arguments.table, arguments.picture)
    print_result(arguments, points, policy.format_evaluation)


def judge(arguments):
    from keras_attn.training.experiments import exit_policies

    rows = exit_policies.judge(arguments.table, arguments.seeds, arguments.results)
    print(exit_policies.format_judgement(rows))


def table(arguments):
    from keras_attn.training.early_exit.model import write_table

    table = write_table(
        arguments.model,
        arguments.resized,
        arguments.output,
        data=arguments.data,
        split=arguments.split,
        checkpoint=arguments.checkpoint,
        on_corrupt=arguments.on_corrupt,
    )
    images, exits = table["confidence"].shape
    print(f"{arguments.output}: {images} images, {exits} exits")


def model(arguments):
    from keras_attn.training.early_exit.model import write_model

    rule = write_model(
        arguments.model,
        arguments.resized,
        policy=arguments.policy,
        budget=arguments.budget,
        output=arguments.output,
        checkpoint=arguments.checkpoint,
    )
    print(f"{arguments.output}: mean cost {rule.cost:.6g} on the table of the policy")
