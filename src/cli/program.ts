/** The parser and its help texts, made from the table of commands. */
import { Argument, Command, CommanderError, Option } from 'commander';
import type { ArgumentRow, CommandRow, FlagRow, Input } from './command-table.js';
import { ATTACH_COMMANDS } from './commands/attach-commands.js';
import { CLONE_COMMANDS } from './commands/clone-commands.js';
import { completionCommand } from './commands/completion-command.js';
import { EXTENT_COMMANDS } from './commands/extent-commands.js';
import { EXTERNAL_COMMANDS } from './commands/external-commands.js';
import { IMAGE_COMMANDS } from './commands/image-commands.js';
import { PUBLISH_COMMANDS } from './commands/publish-commands.js';
import { SERVER_COMMANDS } from './commands/server-commands.js';
import { VDISK_COMMANDS } from './commands/vdisk-commands.js';
import { VERIFY_COMMANDS } from './commands/verify-command.js';
import type { GlobalFlags } from './context.js';
import { CommandError } from './failure.js';
import { GLOBAL_FLAGS } from './global-flags.js';
import type { Output } from './output.js';

/** In the order of the help text. */
export const COMMANDS: readonly CommandRow[] = [
  ...SERVER_COMMANDS,
  ...VDISK_COMMANDS,
  ...CLONE_COMMANDS,
  ...VERIFY_COMMANDS,
  ...IMAGE_COMMANDS,
  ...EXTERNAL_COMMANDS,
  ...PUBLISH_COMMANDS,
  ...EXTENT_COMMANDS,
  ...ATTACH_COMMANDS,
  completionCommand(() => COMMANDS),
];

const BEGINNING = `
To begin:
  $ keiki serve --store disks.keiki --size 64G &
  $ keiki import debian.qcow2 golden && keiki snapshot golden v1
  $ keiki clone golden@v1 web1 web2
  $ keiki attach web1 --socket /tmp/web1.sock

Names are vdisk and vdisk@snapshot. Exit codes, and all else: docs/CLI.md.`;

/** What was asked for on a command line. */
export interface Wanted {
  readonly row: CommandRow;
  readonly input: Input;
  readonly globals: GlobalFlags;
}

/**
 * @param args  behind the program's name
 * @returns undefined if the answer was a help text or the version, which is printed
 * @throws {CommandError} usage
 */
export async function parseArguments(
  args: readonly string[],
  version: string,
  output: Output,
): Promise<Wanted | undefined> {
  let wanted: Wanted | undefined;
  let help = '';
  const program = newProgram(version, (row, command) => {
    const { api, ...globals } = command.optsWithGlobals<GlobalFlags & { api?: string[] }>();
    const raw = args.toSpliced(args.indexOf(row.name), 1);
    const last = api?.at(-1);
    wanted = {
      row,
      input: { arguments: command.processedArgs as unknown[], flags: command.opts(), raw },
      globals: last === undefined ? globals : { ...globals, api: last },
    };
  });
  const errors: string[] = [];
  program.configureOutput({ writeOut: (text) => (help += text), writeErr: (t) => errors.push(t) });
  for (const command of program.commands) command.copyInheritedSettings(program);
  try {
    program.parse([...args], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.code === 'commander.help' && help === '') {
      throw new CommandError('usage', `which command?\n\n${errors.join('').trimEnd()}`);
    }
    if (error.exitCode !== 0) throw new CommandError('usage', toMessage(error, args));
  }
  if (help !== '') await output.print(help.trimEnd());
  return wanted;
}

/** In one line, with what to do next. */
/** What commander says, as we do: what it is about first, as it stands in the usage line. */
const REWORDED: readonly (readonly [RegExp, string])[] = [
  [/^required option '(?:-\w, )?(--[\w-]+) <(.*)>' not specified$/, '$1 $2 is missing'],
  [/^missing required argument '(.*)'$/, '$1 is missing'],
  [/^option '(?:-\w, )?(--[\w-]+) <(.*)>' argument missing$/, '$1 wants $2 behind it'],
  [/^option '(?:-\w, )?(--[\w-]+) <.*>' argument '(.*)' is invalid\. /, '$1 "$2": '],
  [/^command-argument value '(.*)' is invalid for argument '(.*)'\. /, '$2 "$1": '],
  [
    /^too many arguments for '(.*)'\. Expected (\d+) arguments? but got (\d+)$/,
    'too many words: $1 takes $2, not $3',
  ],
];

function toMessage(error: CommanderError, args: readonly string[]): string {
  const line = error.message.replaceAll(/\s*\n\s*/g, ' ');
  const plain = line.replace(/^error: /, '').replace(/\.$/, '');
  const text = REWORDED.reduce((words, [theirs, ours]) => words.replace(theirs, ours), plain);
  const name = COMMANDS.find((row) => args.includes(row.name))?.name;
  return `${text}; see \`keiki ${name === undefined ? '' : `${name} `}--help\``;
}

function newProgram(
  version: string,
  onWanted: (row: CommandRow, command: Command) => void,
): Command {
  const program = new Command('keiki')
    .description('Virtual disks, snapshots, instant clones, and an online split.')
    .usage('COMMAND ...')
    .version(version, '-V, --version', 'the version of this program')
    .helpOption('-h, --help', 'this text')
    .helpCommand('help [COMMAND]', 'the help text of a command')
    .exitOverride()
    .configureHelp({
      showGlobalOptions: true,
      subcommandTerm: (command) => command.name(),
      argumentTerm: (argument) => argument.name(),
      optionTerm: (option) => option.flags.replaceAll(/[<>]/g, ''),
    })
    .addHelpText('after', BEGINNING);
  for (const flag of GLOBAL_FLAGS) program.addOption(toOption(flag));
  for (const row of COMMANDS) {
    const command = program.command(row.name).description(describeRow(row)).summary(row.summary);
    command.usage(row.usage).helpOption('-h, --help', 'this text');
    for (const each of row.arguments) command.addArgument(toArgument(each));
    for (const each of row.flags) command.addOption(toOption(each));
    const title = row.examples.length === 1 ? 'Example' : 'Examples';
    const examples = row.examples.map((example) => `  $ ${example}`).join('\n');
    command.addHelpText('after', `\n${title}:\n${examples}`);
    command.action(() => onWanted(row, command));
  }
  return program;
}

function describeRow({ summary, details }: CommandRow): string {
  return details === undefined ? `${summary}.` : `${summary}. ${details}`;
}

function toArgument(row: ArgumentRow): Argument {
  const name = `${row.name}${row.isMany === true ? '...' : ''}`;
  const argument = new Argument(row.isOptional === true ? `[${name}]` : `<${name}>`, row.summary);
  if (row.choices !== undefined) argument.choices([...row.choices]);
  const { parse } = row;
  if (parse === undefined) return argument;
  return argument.argParser((text: string, before: unknown): unknown => {
    if (row.isMany !== true) return parse(text);
    return [...(Array.isArray(before) ? (before as unknown[]) : []), parse(text)];
  });
}

/** How commander names it: -f, --force; --size <SIZE>. */
function toOption(row: FlagRow): Option {
  const short = row.short === undefined ? '' : `-${row.short}, `;
  const takes = row.takes === undefined ? '' : ` <${row.takes}>`;
  const option = new Option(`${short}--${row.name}${takes}`, row.summary);
  if (row.choices !== undefined) option.choices([...row.choices]);
  if (row.fallback !== undefined) option.default(row.fallback);
  if (row.isRequired === true) option.makeOptionMandatory();
  const { parse } = row;
  if (parse !== undefined) option.argParser((text) => parse(text));
  else if (row.isList === true && row.takes !== undefined) {
    option.argParser((text: string, before: unknown) => [
      ...(Array.isArray(before) ? (before as string[]) : []),
      text,
    ]);
  }
  return option;
}
