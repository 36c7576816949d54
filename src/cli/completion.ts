/** Completion scripts for bash, zsh and fish, made from the table of commands. Pure. */
import { invariant } from '../base/invariant.js';
import type { CommandRow, Completes, FlagRow } from './command-table.js';
import { GLOBAL_FLAGS } from './global-flags.js';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

const HELP_FLAG: FlagRow = { name: 'help', short: 'h', summary: 'this text' };
/** Names of the store, one a line. */
const ASK_NAMES = 'keiki list --names 2>/dev/null';

export function completionScript(shell: Shell, rows: readonly CommandRow[]): string {
  switch (shell) {
    case 'bash':
      return bashScript(rows);
    case 'zsh':
      return zshScript(rows);
    case 'fish':
      return fishScript(rows);
  }
}

const allFlags = (row: CommandRow): FlagRow[] => [...row.flags, ...GLOBAL_FLAGS, HELP_FLAG];

const words = (flags: readonly FlagRow[]): string => flags.map(({ name }) => `--${name}`).join(' ');

/** Kinds of its arguments in their order; one with a + stands for all that follow. */
function kindsOf(row: CommandRow): string {
  return row.arguments
    .map(({ completes, choices, isMany }) => {
      const kind = choices === undefined ? completes : `one-of:${choices.join(',')}`;
      return isMany === true ? `${kind}+` : kind;
    })
    .join(' ');
}

/** Flags that a value follows. */
function valuedFlags(rows: readonly CommandRow[]): string {
  const [valued, plain] = [new Set<string>(), new Set<string>()];
  for (const { name, takes } of rows.flatMap(allFlags)) {
    (takes === undefined ? plain : valued).add(name);
  }
  const isEither = [...valued].every((name) => !plain.has(name));
  invariant(isEither, 'a flag takes a value in all commands, or in none');
  return [...valued].map((name) => `--${name}`).join(' ');
}

/** `'split --mode') kind='one-of:copy,share' ;;` for each flag whose values can be offered. */
function valueCases(rows: readonly CommandRow[], indent: string): string {
  const cases = rows.flatMap((row) =>
    allFlags(row).flatMap(({ name, takes, choices, completes = 'nothing' }) => {
      if (takes === undefined) return [];
      const kind = choices === undefined ? completes : `one-of:${choices.join(',')}`;
      return kind === 'nothing' ? [] : [`${indent}'${row.name} --${name}') kind='${kind}' ;;`];
    }),
  );
  return cases.join('\n');
}

/** What both bash and zsh understand: which kind of word is due, from the words before. */
function wordLogic(rows: readonly CommandRow[]): string {
  const cases = rows.map(
    (row) => `    ${row.name}) kinds='${kindsOf(row)}'; flags='${words(allFlags(row))}' ;;`,
  );
  return `\
  for word in "\${before[@]}"; do
    if [[ -n $prev && " $valued " == *" $prev "* ]]; then prev=; continue; fi
    prev=
    case "$word" in
      -*) prev=$word ;;
      *) if [[ -z $command ]]; then command=$word; else position=$((position + 1)); fi ;;
    esac
  done
  case "$command" in
${cases.join('\n')}
  esac
  if [[ -n $prev && " $valued " == *" $prev "* ]]; then
    case "$command $prev" in
${valueCases(rows, '      ')}
    esac
  elif [[ $cur == -* ]]; then
    kind=flags
  elif [[ -z $command ]]; then
    kind=commands
  else
    for word in $(echo "$kinds"); do
      if [[ $position -eq 0 || $word == *+ ]]; then kind=\${word%+}; break; fi
      position=$((position - 1))
    done
  fi
  case "$kind" in
    flags) offered=$flags ;;
    commands) offered='${rows.map(({ name }) => name).join(' ')} help' ;;
    one-of:*) offered=$(echo "\${kind#one-of:}" | tr , ' ') ;;
    any-name) offered=$(${ASK_NAMES}) ;;
    vdisk) offered=$(${ASK_NAMES} | grep -v @) ;;
    snapshot) offered=$(${ASK_NAMES} | grep @) ;;
  esac`;
}

function bashScript(rows: readonly CommandRow[]): string {
  return `\
# Completion of keiki for bash. Load it: source <(keiki completion bash)
_keiki() {
  local line=\${COMP_LINE:0:COMP_POINT} cur= prev= command= kinds= kind= word position=0 offered=
  local flags='${words([...GLOBAL_FLAGS, HELP_FLAG])} --version'
  local valued='${valuedFlags(rows)}'
  local -a before
  # Words as people see them: to bash, @ and : part them, too.
  read -ra before <<< "$line"
  if [[ $line != *[[:space:]] ]]; then cur=\${before[-1]}; unset 'before[-1]'; fi
  before=("\${before[@]:1}")
${wordLogic(rows)}
  if [[ $kind == file ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    return
  fi
  mapfile -t COMPREPLY < <(compgen -W "$offered" -- "$cur")
  # Bash replaces only what stands behind the last @ or :.
  local kept=\${cur%"\${cur##*[@:]}"}
  COMPREPLY=("\${COMPREPLY[@]#"$kept"}")
}
complete -F _keiki keiki
`;
}

function zshScript(rows: readonly CommandRow[]): string {
  return `\
#compdef keiki
# Completion of keiki for zsh. Load it: source <(keiki completion zsh)
_keiki() {
  local cur=$PREFIX prev= command= kinds= kind= word position=0 offered=
  local flags='${words([...GLOBAL_FLAGS, HELP_FLAG])} --version'
  local valued='${valuedFlags(rows)}'
  local -a before
  before=("\${(@)words[2,CURRENT-1]}")
${wordLogic(rows)}
  if [[ $kind == file ]]; then
    _files
  elif [[ -n $offered ]]; then
    compadd -- \${=offered}
  fi
}
if [[ $funcstack[1] == _keiki ]]; then _keiki "$@"; else compdef _keiki keiki; fi
`;
}

const FISH_NAMES: Readonly<Record<Completes, string | undefined>> = {
  'any-name': ASK_NAMES,
  vdisk: `${ASK_NAMES} | string match -v "*@*"`,
  snapshot: `${ASK_NAMES} | string match "*@*"`,
  file: undefined,
  nothing: undefined,
};

function fishScript(rows: readonly CommandRow[]): string {
  const lines = ['# Completion of keiki for fish. Load it: keiki completion fish | source'];
  lines.push('complete -c keiki -f');
  for (const flag of [...GLOBAL_FLAGS, HELP_FLAG])
    lines.push(`complete -c keiki ${fishFlag(flag)}`);
  for (const { name, summary } of rows) {
    lines.push(`complete -c keiki -n __fish_use_subcommand -a ${name} -d ${quote(summary)}`);
  }
  for (const row of rows) {
    const seen = `complete -c keiki -n '__fish_seen_subcommand_from ${row.name}'`;
    for (const flag of row.flags) lines.push(`${seen} ${fishFlag(flag)}`);
    const offers = row.arguments.map(({ completes, choices }) => {
      if (choices !== undefined) return `-a ${quote(choices.join(' '))}`;
      const names = FISH_NAMES[completes];
      return names === undefined ? (completes === 'file' ? '-F' : '') : `-a ${quote(`(${names})`)}`;
    });
    for (const offer of new Set(offers)) if (offer !== '') lines.push(`${seen} ${offer}`);
  }
  return `${lines.join('\n')}\n`;
}

function fishFlag({ name, short, takes, choices, completes, summary }: FlagRow): string {
  const names = `${short === undefined ? '' : `-s ${short} `}-l ${name}`;
  const value =
    takes === undefined
      ? ''
      : choices !== undefined
        ? ` -x -a ${quote(choices.join(' '))}`
        : completes === 'file'
          ? ' -r -F'
          : ' -x';
  return `${names}${value} -d ${quote(summary)}`;
}

function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
