#!/usr/bin/env bash
# Carries one command of eksup, passes on signals, and leaves outputs, a step summary and the run's report.
# Outputs: exit-code, and where a run was carried: run, folder (events, journal, report), report. eksup itself adds `paused`.
# The upper-case names below are the environment that action.yml gives.
# shellcheck disable=SC2153
set -euo pipefail

eksup="$FOLDER/eksup"
runs="$RUNNER_TEMP/eksup-runs"
mkdir -p "$runs"
started=$(mktemp "$RUNNER_TEMP/eksup-started.XXXXXX")
shown=$(mktemp "$RUNNER_TEMP/eksup-shown.XXXXXX")
trap 'rm -f "$started" "$shown"' EXIT

command=("$COMMAND" --run-dir "$runs")
if [[ -n "$PLAN" && -n "$CLUSTER" ]]; then
  echo "::error title=eksup::give \`plan\` or \`cluster\`, not both"
  echo "exit-code=2" >>"$GITHUB_OUTPUT"
  exit 2
fi
[[ -z "$PLAN" ]] || command+=("$PLAN")
[[ -z "$CLUSTER" ]] || command+=(--cluster "$CLUSTER")
# xargs takes quotes as a shell does, and expands nothing.
if [[ -n "${ARGS//[[:space:]]/}" ]]; then
  split=$(mktemp "$RUNNER_TEMP/eksup-args.XXXXXX")
  if ! printf '%s' "$ARGS" | xargs printf '%s\0' >"$split"; then
    echo "::error title=eksup::\`args\` has a quote without its other one"
    echo "exit-code=2" >>"$GITHUB_OUTPUT"
    exit 2
  fi
  while IFS= read -r -d '' word; do command+=("$word"); done <"$split"
  rm -f "$split"
fi
# Nobody can be asked here.
if [[ "$COMMAND" == apply || "$COMMAND" == rollback ]] && [[ " ${command[*]} " != *" --auto-approve "* ]]; then
  command+=(--auto-approve)
fi
if [[ "$COMMAND" == apply && "$PAUSE_OK" == true ]]; then
  command+=(--pause-ok)
fi

size() { if [[ -n "${GITHUB_STEP_SUMMARY:-}" && -f "$GITHUB_STEP_SUMMARY" ]]; then wc -c <"$GITHUB_STEP_SUMMARY"; else echo 0; fi; }
before=$(size)

echo "+ eksup ${command[*]}"
# In the background, so that the trap runs at once. What only looks says all at its end, and is kept for the summary.
case "$COMMAND" in
  check | plan | status | rehearse) "$eksup" "${command[@]}" </dev/null >"$shown" & ;;
  *) "$eksup" "${command[@]}" </dev/null & ;;
esac
child=$!
trap 'kill -INT "$child" 2>/dev/null || true' INT TERM HUP
code=0
wait "$child" || code=$?
# A signal ends `wait`, not eksup, which then writes down its pause.
while kill -0 "$child" 2>/dev/null; do
  code=0
  wait "$child" || code=$?
done
echo "exit-code=$code" >>"$GITHUB_OUTPUT"
cat "$shown"

# eksup writes the summary of a run by itself; what was only shown is added here.
if [[ -n "${GITHUB_STEP_SUMMARY:-}" && "$(size)" == "$before" && -s "$shown" ]]; then
  {
    printf '### eksup %s: exit code %s\n\n````text\n' "$COMMAND" "$code"
    head -c 200000 "$shown"
    printf '\n````\n'
  } >>"$GITHUB_STEP_SUMMARY"
fi

newest=""
for events in "$runs"/*/events.jsonl; do
  [[ -e "$events" && ! "$events" -ot "$started" ]] || continue
  [[ -n "$newest" && "$events" -ot "$newest" ]] || newest=$events
done
if [[ -n "$newest" ]]; then
  folder=$(dirname "$newest")
  {
    echo "run=$(basename "$folder")"
    echo "folder=$folder"
  } >>"$GITHUB_OUTPUT"
  if "$eksup" report --run "$folder" -o "$folder/report.html"; then
    echo "report=$folder/report.html" >>"$GITHUB_OUTPUT"
  else
    echo "::warning title=eksup::the report could not be written"
  fi
fi

exit "$code"
