"""The files of cluster/: accepted by Ray, consistent with each other, with the package, and with the prices they quote.

Nothing is started. Rules are functions that raise, so that the tests can also show them broken files.
"""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

import s3ray

FOLDER = Path(__file__).parents[2] / "cluster"
PROJECT = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
PRICES = tomllib.loads((FOLDER / "prices.toml").read_text())
TEXTS = {str(path.relative_to(FOLDER)): path.read_text() for path in FOLDER.rglob("*") if path.is_file()}
WAYS = ("aws", "gcp", "on_prem")  # Ray's cluster launcher
PAGES = (*WAYS, "kuberay")

TRIALS_PER_GPU = 4  # the most that CPUs of the workers allow
GB_PER_TRIAL = 0.75  # three processes on the head
GB_OF_RAY = 4  # Ray itself and the job on the head


def launcher_file(way: Any) -> Any:
    return yaml.safe_load(TEXTS[f"{way}.yaml"])


def kubernetes() -> Any:
    """The documents of kuberay/ by kind."""
    names = [name for name in TEXTS if name.startswith("kuberay/") and name.endswith(".yaml")]
    documents = [document for name in sorted(names) for document in yaml.safe_load_all(TEXTS[name])]
    by_kind = {document["kind"]: document for document in documents}
    assert len(by_kind) == len(documents)
    return by_kind


def docker_environment(config: Any, options: Any = ("run_options",)) -> Any:
    listed = [option for name in options for option in config["docker"].get(name, [])]
    return dict(option.removeprefix("--env ").split("=", 1) for option in listed if option.startswith("--env "))


def own_maximum(config: Any, resource: Any) -> Any:
    """What head and workers hold once the autoscaler may add no more, each resource at its own most."""
    limit, kinds = config["max_workers"], dict(config["available_node_types"])
    head = kinds.pop(config["head_node_type"])
    # Spot and on-demand types may each be allowed as many nodes as the whole cluster.
    amounts = [
        kind["resources"].get(resource, 0) for kind in kinds.values() for _ in range(min(kind["max_workers"], limit))
    ]
    return head["resources"].get(resource, 0) + sum(sorted(amounts, reverse=True)[:limit])


@pytest.mark.parametrize(
    ("limit", "kinds", "cpus", "gpus"),
    [
        (8, [], 2, 0),
        (8, [({"CPU": 4}, 3)], 14, 0),
        (3, [({"CPU": 8, "GPU": 1}, 3), ({"CPU": 8, "GPU": 1}, 3)], 26, 3),  # a fallback does not count twice
        # Each resource at its own most: one node of 8 GPUs, or the two with the most CPUs.
        (2, [({"CPU": 4, "GPU": 8}, 1), ({"CPU": 16}, 2)], 34, 8),
    ],
)
def test_a_files_own_maximum(limit: Any, kinds: Any, cpus: Any, gpus: Any) -> None:
    types = {str(i): {"resources": held, "max_workers": most} for i, (held, most) in enumerate(kinds)}
    types["head"] = {"resources": {"CPU": 2}}
    config = {"max_workers": limit, "head_node_type": "head", "available_node_types": types}
    assert (own_maximum(config, "CPU"), own_maximum(config, "GPU")) == (cpus, gpus)


def check_head_memory(gigabytes: Any, gpus: Any) -> None:
    assert GB_OF_RAY + GB_PER_TRIAL * TRIALS_PER_GPU * gpus <= gigabytes


# Ray's cluster launcher


@pytest.mark.parametrize("way", WAYS)
def test_ray_accepts(way: Any) -> None:
    prepared = prepare_config(launcher_file(way))
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


@pytest.mark.parametrize("way", WAYS)
def test_ray_refuses_what_it_does_not_know(way: Any) -> None:
    with pytest.raises(Exception, match="idle_minutes"):
        validate_config(prepare_config(launcher_file(way) | {"idle_minutes": 5}))


def check_launcher(config: Any) -> None:
    """What holds for every file of Ray's cluster launcher."""
    environment = docker_environment(config)
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] in config["file_mounts"]
    assert "S3RAY_STORAGE" in environment
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert [command.split()[:2] for command in commands] == [["ray", "stop"], ["ray", "start"]]
    start = config["head_start_ray_commands"][1].split()
    assert {"--head", "--num-cpus=0", "--num-gpus=0", "--dashboard-host=127.0.0.1"} <= set(start)
    assert "--address=$RAY_HEAD_IP:6379" in config["worker_start_ray_commands"][1].split()
    assert "--gpus all" in config["docker"]["worker_run_options"]


def check_cloud(config: Any, prices: Any) -> None:
    """What holds where machines are hired."""
    check_launcher(config)
    types = config["available_node_types"]
    assert list(types) == ["head", "spot", "on_demand"]
    assert 5 <= config["idle_timeout_minutes"] <= 30
    kinds = {
        name: node["node_config"].get("InstanceType") or node["node_config"]["machineType"]
        for name, node in types.items()
    }
    assert kinds == {
        "head": prices["head"]["type"],
        "spot": prices["worker"]["type"],
        "on_demand": prices["worker"]["type"],
    }
    assert config["provider"]["region"] == prices["region"]
    assert types["head"]["resources"] == {"CPU": 0}
    for name in ("spot", "on_demand"):
        node = types[name]
        assert node.get("min_workers", 0) == 0
        assert node["max_workers"] == config["max_workers"]
        assert node["resources"] == {"CPU": prices["worker"]["cpus"], "GPU": prices["worker"]["gpus"]}
        assert node["resources"]["CPU"] >= TRIALS_PER_GPU * node["resources"]["GPU"]
        market = node["node_config"].get("InstanceMarketOptions", {}).get("MarketType")
        provisioning = node["node_config"].get("scheduling", {}).get("provisioningModel")
        assert ("spot" in (market, str(provisioning).lower())) == (name == "spot")
    assert types["spot"]["priority"] > types["on_demand"].get("priority", 0)
    # A sweep starts no more trials than these; on demand stands in for spot and does not count twice.
    environment = docker_environment(config)
    for resource in ("CPU", "GPU"):
        assert int(environment[f"S3RAY_MAX_{resource}S"]) == own_maximum(config, resource)
        assert own_maximum(config, resource) == config["max_workers"] * prices["worker"][f"{resource.lower()}s"]
    check_head_memory(prices["head"]["memory"], int(environment["S3RAY_MAX_GPUS"]))


@pytest.mark.parametrize("way", ["aws", "gcp"])
def test_hired_machines(way: Any) -> None:
    check_cloud(launcher_file(way), PRICES[way])


def test_own_machines() -> None:
    config = launcher_file("on_prem")
    check_launcher(config)
    environment = docker_environment(config)
    mounts = [option.split()[1] for option in config["docker"]["run_options"] if option.startswith("--volume")]
    assert environment["S3RAY_SHARED_FILESYSTEM"] == "1"
    assert not {name for name in environment if name.startswith("S3RAY_MAX")}  # all machines are there from the start
    assert mounts == [f"{environment['S3RAY_STORAGE']}:{environment['S3RAY_STORAGE']}"]


def without(entry: Any) -> Any:
    def mutate(config: Any) -> None:
        config["docker"]["run_options"] = [o for o in config["docker"]["run_options"] if entry not in o]

    return mutate


@pytest.mark.parametrize(
    "mutate",
    [
        without("RAY_AUTH_MODE"),
        without("RAY_AUTH_TOKEN_PATH"),
        without("S3RAY_STORAGE"),
        without("S3RAY_MAX_GPUS"),
        lambda config: [node.update(max_workers=9) for node in (config, *config["available_node_types"].values())],
        lambda config: config["file_mounts"].clear(),
        lambda config: config.update(max_workers=9),
        lambda config: config["head_start_ray_commands"].__setitem__(1, "ray start --head"),
        lambda config: config["available_node_types"]["head"].update(resources={"CPU": 4}),
        lambda config: config["available_node_types"]["spot"].update(min_workers=1),
        lambda config: config["available_node_types"]["spot"].pop("priority"),
        lambda config: config["available_node_types"]["spot"]["node_config"].pop("InstanceMarketOptions"),
        lambda config: config["available_node_types"]["on_demand"]["node_config"].update(InstanceType="p5.48xlarge"),
    ],
)
def test_the_rules_notice(mutate: Any) -> None:
    config = launcher_file("aws")
    mutate(config := copy.deepcopy(config))  # anchors make two types share their parts
    with pytest.raises((AssertionError, KeyError)):
        check_cloud(config, PRICES["aws"])


def test_a_head_too_small_is_noticed() -> None:
    with pytest.raises(AssertionError):
        check_head_memory(16, 8)


# Kubernetes


def token_of(container: Any) -> Any:
    """Name and key of the secret that the container's token comes from."""
    entries = {entry["name"]: entry for entry in container["env"]}
    assert len(entries) == len(container["env"])
    assert entries["RAY_AUTH_MODE"]["value"] == "token"
    assert "value" not in entries["RAY_AUTH_TOKEN"]
    reference = entries["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    return reference["name"], reference["key"]


def quantity(text: Any) -> Any:
    """A Kubernetes quantity of CPUs or bytes."""
    number, unit = re.fullmatch(r"([\d.]+)(m|Mi|Gi)?", str(text)).groups()
    return float(number) * {None: 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30}[unit]


def check_resources(resources: Any) -> None:
    assert resources["requests"].keys() == resources["limits"].keys() >= {"cpu", "memory"}
    for name, amount in resources["requests"].items():
        assert quantity(amount) <= quantity(resources["limits"][name])
    # Memory that is not requested is memory that may not be there.
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


def matches(selector: Any, labels: Any) -> Any:
    return selector["matchLabels"].items() <= labels.items()


def check_kubernetes(documents: Any, prices: Any) -> None:
    assert {kind: document["apiVersion"] for kind, document in documents.items()} == {
        "ServiceAccount": "v1",
        "RayCluster": "ray.io/v1",
        "RayJob": "ray.io/v1",
        "NetworkPolicy": "networking.k8s.io/v1",
    }
    cluster, spec = documents["RayCluster"], documents["RayCluster"]["spec"]
    secret = (spec["authOptions"]["secretName"], "auth_token")  # the key that KubeRay reads
    assert spec["authOptions"]["mode"] == "token"

    autoscaler = spec["autoscalerOptions"]
    assert spec["enableInTreeAutoscaling"] is True
    assert autoscaler["version"] == "v2"
    assert 300 <= autoscaler["idleTimeoutSeconds"] <= 1800
    check_resources(autoscaler["resources"])
    assert token_of(autoscaler) == secret

    head, groups = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert [group["groupName"] for group in groups] == ["spot", "on-demand"]
    account = documents["ServiceAccount"]["metadata"]["name"]
    for group in (head, *groups):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # CRD: a map of strings
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == account
        assert "restartPolicy" not in pod  # autoscaler v2 wants KubeRay's own choice
        (container,) = pod["containers"]
        check_resources(container["resources"])
        assert token_of(container) == secret

    assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    (ray_head,) = head["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in ray_head["env"]}
    assert environment["S3RAY_STORAGE"]
    ports = {port["name"]: port["containerPort"] for port in ray_head["ports"]}
    assert ports == {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}
    for resource in ("CPU", "GPU"):
        held = int(groups[0]["rayStartParams"][f"num-{resource.lower()}s"]) * groups[0]["maxReplicas"]
        assert int(environment[f"S3RAY_MAX_{resource}S"]) == held
    check_head_memory(quantity(ray_head["resources"]["limits"]["memory"]) / 2**30, int(environment["S3RAY_MAX_GPUS"]))
    assert quantity(ray_head["resources"]["requests"]["memory"]) < 0.9 * prices["head"]["memory"] * 2**30

    for group in groups:
        assert group["replicas"] == group["minReplicas"] == 0
        assert group["maxReplicas"] == groups[0]["maxReplicas"]
        assert group["template"]["spec"]["nodeSelector"] == {"s3ray/capacity": group["groupName"]}
        assert [t["key"] for t in group["template"]["spec"]["tolerations"]] == ["nvidia.com/gpu"]
        (worker,) = group["template"]["spec"]["containers"]
        limits, requests = worker["resources"]["limits"], worker["resources"]["requests"]
        assert group["rayStartParams"] == {"num-cpus": limits["cpu"], "num-gpus": str(limits["nvidia.com/gpu"])}
        assert int(limits["cpu"]) >= TRIALS_PER_GPU * limits["nvidia.com/gpu"]
        assert requests["nvidia.com/gpu"] == limits["nvidia.com/gpu"] == prices["worker"]["gpus"]
        # A node of that type keeps something for Kubernetes.
        assert quantity(requests["cpu"]) < prices["worker"]["cpus"]
        assert quantity(requests["memory"]) < 0.8 * prices["worker"]["memory"] * 2**30

    labels = {"ray.io/cluster": cluster["metadata"]["name"]}  # KubeRay's, on every pod of the cluster
    job, policy = documents["RayJob"]["spec"], documents["NetworkPolicy"]["spec"]
    assert job["clusterSelector"] == labels
    assert "rayClusterSpec" not in job
    assert job["submissionMode"] == "HTTPMode"
    folder, script = re.fullmatch(r"cd (\S+) && python (\S+\.py)( --\S+ \S+)*", job["entrypoint"]).groups()[:2]
    assert f"WORKDIR {folder}\n" in TEXTS["Dockerfile"]
    assert script == "sweeps/full_grid.py"

    assert policy["policyTypes"] == ["Ingress"]
    assert matches(policy["podSelector"], labels)
    open_to = []
    for rule in policy["ingress"]:
        assert rule["from"]  # an empty list would mean everyone
        for peer in rule["from"]:
            own = "namespaceSelector" not in peer and matches(peer["podSelector"], labels)
            assert own or "ports" in rule
            open_to += [] if own else [(port["port"], peer) for port in rule["ports"]]
    assert any("ports" not in rule for rule in policy["ingress"])  # the cluster's own pods talk on every port
    assert [port for port, _ in open_to] == [8265, 8080]
    assert matches(open_to[0][1]["podSelector"], {"app.kubernetes.io/name": "kuberay-operator"})


def test_kubernetes() -> None:
    check_kubernetes(kubernetes(), PRICES["kubernetes"])


def worker(documents: Any, index: Any = 0) -> Any:
    return documents["RayCluster"]["spec"]["workerGroupSpecs"][index]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    "mutate",
    [
        lambda d: d["RayCluster"]["metadata"].update(name="other"),
        lambda d: d["RayCluster"]["spec"]["autoscalerOptions"].update(version="v1"),
        lambda d: d["RayCluster"]["spec"]["authOptions"].update(secretName="other"),
        lambda d: d["RayCluster"]["spec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": "4"}),
        lambda d: d["RayCluster"]["spec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda d: d["RayCluster"]["spec"]["workerGroupSpecs"][1].update(maxReplicas=9),
        lambda d: [group.update(maxReplicas=9) for group in d["RayCluster"]["spec"]["workerGroupSpecs"]],
        lambda d: worker(d)["resources"].pop("requests"),
        lambda d: worker(d)["resources"]["limits"].update(cpu="2"),
        lambda d: worker(d, 1)["env"].clear(),
        lambda d: worker(d)["env"].__setitem__(1, {"name": "RAY_AUTH_TOKEN", "value": "secret"}),
        lambda d: d["RayJob"]["spec"].update(entrypoint="python sweeps/full_grid.py"),
        lambda d: d["RayJob"]["spec"].update(clusterSelector={"ray.io/cluster": "other"}),
        lambda d: d["NetworkPolicy"]["spec"]["podSelector"].update(matchLabels={"app": "ray"}),
        lambda d: d["NetworkPolicy"]["spec"]["ingress"].append({"from": [{"namespaceSelector": {}}]}),
        lambda d: d["NetworkPolicy"]["spec"]["ingress"].append({"from": [], "ports": [{"port": 6379}]}),
        lambda d: d["NetworkPolicy"]["spec"]["ingress"][1]["ports"].append({"protocol": "TCP", "port": 6379}),
    ],
)
def test_the_rules_for_kubernetes_notice(mutate: Any) -> None:
    documents = copy.deepcopy(kubernetes())
    mutate(documents)
    with pytest.raises((AssertionError, AttributeError, KeyError, IndexError)):
        check_kubernetes(documents, PRICES["kubernetes"])


# Versions, secrets, prices, pages


def versions(texts: Any) -> Any:
    """Every version of the package, Ray, Python and torch that the files name."""
    found = {"package": set(), "ray": set(), "python": set(), "torch": set()}
    for text in texts:
        for package, ray_version, python in re.findall(r"s3ray:([\w.]+)-ray([\d.]+)-py(\d+)-[cg]pu", text):
            found["package"].add(package)
            found["ray"].add(ray_version)
            found["python"].add(python)
        for ray_version, python in re.findall(r"rayproject/ray:([\d.]+)-py(\d+)", text):
            found["ray"].add(ray_version)
            found["python"].add(python)
        found["ray"].update(re.findall(r"rayVersion: (\S+)", text))
        found["python"].update(python.replace(".", "") for python in re.findall(r"Python (3\.\d+)", text))
        found["torch"].update(re.findall(r'"(torch\S+)"', text))
    return found


def test_versions_are_the_packages() -> None:
    (torch,) = (entry for entry in PROJECT["dependencies"] if entry.startswith("torch"))
    assert versions(TEXTS.values()) == {
        "package": {s3ray.__version__},
        "ray": {ray.__version__},  # which the environment took from pyproject.toml
        "python": {PROJECT["requires-python"].removeprefix(">=").replace(".", "")},
        "torch": {torch},
    }
    images = {image for text in TEXTS.values() for image in re.findall(r"REGISTRY/s3ray:\S+", text)}
    assert len(images) == 2  # for the head and for the workers


def test_another_version_is_noticed() -> None:
    texts = [*TEXTS.values(), TEXTS["kuberay/raycluster.yaml"].replace("2.60.0", "2.59.0")]
    assert versions(texts)["ray"] == {ray.__version__, "2.59.0"}


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_no_secret_and_no_token_on_a_command_line(name: str) -> None:
    assert not re.search(r"RAY_AUTH_TOKEN\s*=|AKIA[A-Z0-9]{16}|BEGIN [A-Z ]*PRIVATE KEY", TEXTS[name])


def costs(page: Any, prices: Any) -> Any:
    """(what the page says, what the prices say) for every line of its table."""
    base = prices["head"]["on_demand"] + prices.get("fee", 0)
    rows = re.findall(r"^\| head (?:alone|\+ (\d+) (spot|on-demand) workers?) \| ([\d.]+) \|$", page, re.MULTILINE)
    return [
        (quoted, f"{base + int(count or 0) * prices['worker'][(market or 'spot').replace('-', '_')]:.2f}")
        for count, market, quoted in rows
    ]


@pytest.mark.parametrize(("page", "prices"), [("aws", "aws"), ("gcp", "gcp"), ("kuberay", "kubernetes")])
def test_a_page_quotes_the_prices(page: Any, prices: Any) -> None:
    text, prices = TEXTS[f"{page}.md"], PRICES[prices]
    quoted = costs(text, prices)
    assert len(quoted) == 4
    assert all(said == sum_ for said, sum_ in quoted)
    for part in (prices["head"]["type"], prices["worker"]["type"], prices["region"]):
        assert part in text
    dearer = copy.deepcopy(prices)
    dearer["head"]["on_demand"] += 0.02
    assert all(said != sum_ for said, sum_ in costs(text, dearer))


def test_prices_have_a_date_and_sources() -> None:
    assert PRICES["date"].year >= 2026
    for name, place in PRICES.items():
        if name != "date":
            assert place["source"]
            assert 0 < place["worker"]["spot"] < place["worker"]["on_demand"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_goes_all_the_way(page: Any) -> None:
    text = TEXTS[f"{page}.md"]
    headings = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert headings == ["Once", "Start", "Submit", "Watch", "Stop", "Results"]
    storage = re.search(r"--storage (\S+)", text)[1]
    for command in (
        "ray get-auth-token --generate",
        "export RAY_AUTH_MODE=token",
        "ray job submit --no-wait --working-dir . ",
        f"-- python sweeps/full_grid.py --data /home/ray/data --storage {storage} ",
        "ray job logs -f ID",
        f"s3ray tensorboard --storage {storage}",
        "ray job stop ID",
        f"s3ray report --storage {storage} --output report",
    ):
        assert command in text
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (FOLDER / target).exists(), target
    for path in re.findall(r"cluster/[\w/]+\.yaml", text):
        assert (FOLDER.parent / path).exists(), path
