#!/usr/bin/env bash
# Builds the container image for both architectures with buildah, without any network, and runs it where it can be run:
# as not root, against `eksup twin serve` by name. Needs the binary as $1, and root.
set -euo pipefail
cd "$(dirname "$0")/../.."
eksup=$1
folder=target/container-check
rm -rf "$folder"
mkdir -p "$folder"
fail() { echo "error: $*"; exit 1; }

case "$(uname -m)" in x86_64) own=amd64 other=arm64 ;; aarch64) own=arm64 other=amd64 ;; *) fail "no image for $(uname -m)" ;; esac
python3 .ci/container/lay_tree.py --binary "$eksup" --arch "$own" "$folder/trees"
# No compiler here makes binaries of the other architecture: a bare header stands for one. It is built in and never run.
python3 - "$other" "$folder/other" <<'PYTHON'
import struct, sys
machine = {"amd64": 62, "arm64": 183}[sys.argv[1]]
header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 0, 0, 0, 64, 56, 0, 64, 0, 0)
open(sys.argv[2], "wb").write(header)
PYTHON
python3 .ci/container/lay_tree.py --binary "$folder/other" --arch "$other" "$folder/trees"

b() { buildah --root "$PWD/$folder/store" --runroot "$PWD/$folder/run" --storage-driver vfs "$@"; }
network=()
# A network of its own has no way out: nothing can be fetched.
if unshare --net true 2>/dev/null; then network=(unshare --net); fi
for arch in amd64 arm64; do
  "${network[@]}" buildah --root "$PWD/$folder/store" --runroot "$PWD/$folder/run" --storage-driver vfs build -q \
    --isolation chroot --pull=never --platform "linux/$arch" -f .ci/container/Containerfile -t "eksup:$arch" "$folder/trees" >/dev/null
  said=$(b inspect --type image --format '{{.OCIv1.Architecture}} {{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.WorkingDir}}' "eksup:$arch")
  [ "$said" = "$arch 65532:65532 [/usr/bin/eksup] /upgrade" ] || fail "the image for $arch is: $said"
done
b manifest create eksup:both "eksup:amd64" "eksup:arm64" >/dev/null
listed=$(b manifest inspect eksup:both | python3 -c 'import json,sys; print(*sorted(m["platform"]["architecture"] for m in json.load(sys.stdin)["manifests"]))')
[ "$listed" = "amd64 arm64" ] || fail "the list has: $listed"

"$eksup" twin serve expense-dev --port 0 >"$folder/twin.log" 2>&1 &
twin=$!
container=$(b from --pull=never "eksup:$own")
trap 'kill $twin ${tls:-} 2>/dev/null || true; b rm -a >/dev/null 2>&1 || true; rm -rf "$folder/store"' EXIT
for _ in $(seq 100); do grep -q '^serving' "$folder/twin.log" && break; sleep 0.1; done
port=$(sed -n 's/^export AWS_ENDPOINT_URL=.*:\([0-9]*\)$/\1/p' "$folder/twin.log")
run() { run_with "http://localhost:$port" "$@"; }
run_with() {
  b run --isolation chroot --network host --env AWS_ENDPOINT_URL="$1" --env AWS_REGION=us-east-1 \
    --env AWS_ACCESS_KEY_ID=twin --env AWS_SECRET_ACCESS_KEY=twin -v "$PWD/plans:/plans:ro" "${mounts[@]}" "$container" \
    -- /usr/bin/eksup "${@:2}"
}
mounts=()
run --version
run plan /plans/expense-dev.yaml >"$folder/plan.txt" || { cat "$folder/plan.txt"; fail "it cannot plan"; }
grep -q retire-expense-blue "$folder/plan.txt" || fail "the plan is not whole"
run rehearse /plans/expense-dev.yaml --record >"$folder/rehearse.txt" 2>&1 || { tail -5 "$folder/rehearse.txt"; fail "it cannot rehearse"; }

# That the certificates in the image are those that count: a server whose authority is not among them is refused, and taken
# once its authority is added to that file.
(
  cd "$folder"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout tls.key -out tls.csr
  printf 'subjectAltName=DNS:localhost\n' >san
  openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out tls.crt
) >"$folder/openssl.log" 2>&1 || { cat "$folder/openssl.log"; fail "no certificates could be made"; }
python3 - "$folder" >"$folder/tls.port" <<'PYTHON' &
import http.server, ssl, sys
class Denied(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(403)
        self.send_header("x-amzn-errortype", "AccessDeniedException")
        body = b'{"message":"the test says no"}'
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Denied)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + "/tls.crt", sys.argv[1] + "/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
PYTHON
tls=$!
for _ in $(seq 100); do [ -s "$folder/tls.port" ] && break; sleep 0.1; done
secure="https://localhost:$(cat "$folder/tls.port")"
run_with "$secure" check /plans/expense-dev.yaml >"$folder/refused.txt" 2>&1 && fail "a certificate of nobody was taken"
cat /etc/ssl/certs/ca-certificates.crt "$folder/ca.crt" >"$folder/bundle.crt"
mounts=(-v "$PWD/$folder/bundle.crt:/etc/ssl/certs/ca-certificates.crt:ro")
run_with "$secure" check /plans/expense-dev.yaml >"$folder/taken.txt" 2>&1 && fail "a refusal was taken for an answer"
mounts=()
kill "$tls"
grep -qi certificate "$folder/refused.txt" || { cat "$folder/refused.txt"; fail "the certificate was not what it complained of"; }
grep -q "the test says no" "$folder/taken.txt" || { cat "$folder/taken.txt"; fail "the authority in the image's file was not taken"; }

tree=$(b mount "$container")
owner=$(stat -c %u "$tree"/upgrade/eksup-runs/*/events.jsonl)
[ "$owner" = 65532 ] || fail "it ran as user $owner"
[ ! -e "$tree/bin/sh" ] || fail "there is a shell in it"
certificates=$(grep -c 'BEGIN CERTIFICATE' "$tree/etc/ssl/certs/ca-certificates.crt")
size=$(du -sm "$folder/trees/$own" | cut -f1)
echo "the image: $listed, user $owner, $certificates certificates, $size MB on $own, built without a network, planned, rehearsed, and asked by TLS"
