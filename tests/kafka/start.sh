#!/usr/bin/env bash
# Starts one real Kafka broker for tests and prints its address once it answers.
#
#   tests/kafka/start.sh --dir DIR [--jars DIR] [--port N] [--sasl] [--topics N] [--heap SIZE] [--wait SECONDS] [--with PID]
#
#   --dir    everything of this broker: data, settings, certificates, log, pid. Start again with the same folder
#            to get the same data back; delete the folder to forget it.
#   --jars   where the jars are kept (default: DIR/jars). One folder serves any number of brokers.
#   --port   the port for clients (default 19092); the controller listens on the next one.
#   --sasl   clients must use TLS and SCRAM-SHA-512: user `audit`, password `audit-secret`,
#            certificate authority in DIR/tls/ca.pem.
#   --topics make topics when they are first written to, with N partitions (default: a topic that nobody made is an error)
#   --heap   Java heap (default 320m)
#   --with   stop by itself when that process is gone, so that a test run that dies leaves nothing behind
#   --wait   how long to wait for the broker before giving up (default 90)
#
# Needs Java 17 or newer, Maven for the first start, and openssl for --sasl. No container, no root.
# Exit code 3 means that one of these is missing.
set -euo pipefail

self=$(cd "$(dirname "$0")" && pwd)
dir= jars= port=19092 sasl=no heap=320m wait_s=90 owner= topics=
while [ $# -gt 0 ]; do
  case $1 in
    --dir) dir=$2; shift 2 ;;
    --jars) jars=$2; shift 2 ;;
    --port) port=$2; shift 2 ;;
    --topics) topics=$2; shift 2 ;;
    --heap) heap=$2; shift 2 ;;
    --wait) wait_s=$2; shift 2 ;;
    --with) owner=$2; shift 2 ;;
    --sasl) sasl=yes; shift ;;
    *) echo "start.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done
[ -n "$dir" ] || { echo "start.sh: --dir is needed" >&2; exit 2; }
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
jars=${jars:-$dir/jars}

need() { command -v "$1" >/dev/null || { echo "start.sh: $1 is not installed; $2" >&2; exit 3; }; }
need java "install a JRE, version 17 or newer"

if [ -s "$dir/pid" ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null; then
  echo "127.0.0.1:$port"
  exit 0
fi

# --- jars -----------------------------------------------------------------------------------------------------------
# The folder is filled aside and moved into place, so that an interrupted download never looks complete and
# two first starts cannot mix.
if [ ! -d "$jars" ]; then
  need mvn "it fetches the broker's jars the first time (or give --jars)"
  mkdir -p "$(dirname "$jars")"
  filling=$(mktemp -d "$jars.XXXXXX")
  mvn --quiet --batch-mode --file "$self/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$filling" >&2
  mv -T "$filling" "$jars" 2>/dev/null || rm -rf "$filling"
fi

# --- certificates ---------------------------------------------------------------------------------------------------
make_certificates() {
  mkdir -p "$dir/tls"
  cd "$dir/tls"
  openssl req -x509 -new -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 7 -subj "/CN=kubetide test authority"
  openssl req -new -newkey rsa:2048 -nodes -keyout broker.key -out broker.csr -subj "/CN=localhost"
  printf 'subjectAltName = DNS:localhost, IP:127.0.0.1\n' >extensions
  openssl x509 -req -in broker.csr -out broker.pem -days 7 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions
  # the broker reads one PEM file: its key as PKCS#8, then its chain
  { openssl pkcs8 -topk8 -nocrypt -in broker.key; cat broker.pem ca.pem; } >broker-store.pem
  chmod 600 ./*.key broker-store.pem
}
client_protocol=PLAINTEXT
format_extra=()
if [ $sasl = yes ]; then
  need openssl "it makes the test certificates"
  client_protocol=SASL_SSL
  [ -s "$dir/tls/broker-store.pem" ] || (make_certificates) >"$dir/tls.log" 2>&1
  format_extra=(--add-scram 'SCRAM-SHA-512=[name=audit,password=audit-secret]')
fi

# --- settings -------------------------------------------------------------------------------------------------------
{
  cat <<END
node.id=1
process.roles=broker,controller
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))
listeners=TESTS://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=TESTS://127.0.0.1:$port
listener.security.protocol.map=TESTS:$client_protocol,CONTROLLER:PLAINTEXT
inter.broker.listener.name=TESTS
log.dirs=$dir/data

# like most real clusters: a topic that nobody made is an error
auto.create.topics.enable=$([ -n "$topics" ] && echo true || echo false)
num.partitions=${topics:-1}

# a single node can hold one copy only
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# tests start and stop members all the time
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=1000
num.network.threads=2
num.io.threads=2
END
  if [ $sasl = yes ]; then
    cat <<END
ssl.keystore.type=PEM
ssl.keystore.location=$dir/tls/broker-store.pem
ssl.truststore.type=PEM
ssl.truststore.location=$dir/tls/ca.pem
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.tests.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="audit" password="audit-secret";
END
  fi
} >"$dir/broker.properties"
cat >"$dir/log.properties" <<END
status = error
appender.file.type = File
appender.file.name = file
appender.file.fileName = $dir/broker.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
END

# --- run ------------------------------------------------------------------------------------------------------------
run=(java -cp "$jars/*" "-Dlog4j2.configurationFile=$dir/log.properties" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC)
if [ ! -s "$dir/data/meta.properties" ]; then
  id=$("${run[@]}" -Xmx96m kafka.tools.StorageTool random-uuid)
  "${run[@]}" -Xmx192m kafka.tools.StorageTool format --standalone --cluster-id "$id" \
    --config "$dir/broker.properties" ${format_extra[@]+"${format_extra[@]}"} >"$dir/format.log" 2>&1 || {
    cat "$dir/format.log" >&2
    exit 1
  }
fi
: >"$dir/broker.log"
nohup "${run[@]}" "-Xmx$heap" kafka.Kafka "$dir/broker.properties" >"$dir/console.log" 2>&1 </dev/null &
pid=$!
echo $pid >"$dir/pid"
if [ -n "$owner" ]; then
  nohup bash -c 'while kill -0 $0 && kill -0 $1; do sleep 1; done; kill -9 $1' "$owner" $pid >/dev/null 2>&1 </dev/null &
fi

for ((tick = 0; tick < wait_s * 5; tick++)); do
  if grep -q 'Kafka Server started' "$dir/broker.log" && (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "127.0.0.1:$port"
    exit 0
  fi
  kill -0 $pid 2>/dev/null || break
  sleep 0.2
done
echo "start.sh: the broker did not come up; the end of its log:" >&2
tail -n 25 "$dir/broker.log" "$dir/console.log" >&2
kill -9 $pid 2>/dev/null || true
rm -f "$dir/pid"
exit 1
