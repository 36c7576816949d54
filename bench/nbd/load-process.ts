/**
 * The load generator as a process of its own: told by messages what to do, several things at once.
 * Groups of connections stay open from one command to the next.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { nowMs } from '../harness/timing.js';
import { LoadConnection, type LoadJob, type LoadResult } from './load-connection.js';

/** Argument of run.ts that makes it this process. */
export const LOAD_PROCESS = '--nbd-load';

interface OpenCommand {
  readonly kind: 'open';
  readonly group: string;
  readonly socketPath: string;
  /** One connection to each. */
  readonly exportNames: readonly string[];
}

interface RunCommand {
  readonly kind: 'run';
  readonly group: string;
  readonly job: LoadJob;
}

type Command = OpenCommand | RunCommand;

interface Ask {
  readonly id: number;
  readonly command: Command;
}

interface Answer {
  readonly id: number;
  readonly error?: string;
  /** open: how long each connection took; run: what each connection did. */
  readonly opened?: readonly number[];
  readonly results?: readonly LoadResult[];
}

/** Obeys until the process that started it is gone. */
export function obeyLoadCommands(): void {
  const groups = new Map<string, LoadConnection[]>();
  process.on('message', (message) => {
    const { id, command } = message as Ask;
    obey(groups, command).then(
      (answer) => process.send?.({ id, ...answer }),
      (error: unknown) => process.send?.({ id, error: String(error) }),
    );
  });
  process.on('disconnect', () => process.exit(0));
}

async function obey(
  groups: Map<string, LoadConnection[]>,
  command: Command,
): Promise<Omit<Answer, 'id'>> {
  if (command.kind === 'run') {
    const connections = groups.get(command.group) ?? [];
    const { job } = command;
    const runs = connections.map((each, at) => each.run({ ...job, seed: job.seed + 97 * at }));
    return { results: await Promise.all(runs) };
  }
  const connections: LoadConnection[] = [];
  const opened: number[] = [];
  for (const exportName of command.exportNames) {
    const startMs = nowMs();
    connections.push(await LoadConnection.open(command.socketPath, exportName));
    opened.push(nowMs() - startMs);
  }
  for (const each of groups.get(command.group) ?? []) each.close();
  groups.set(command.group, connections);
  return { opened };
}

/** The generator, seen from the bench. */
export class LoadProcess {
  readonly #process: ChildProcess;
  readonly #waiting = new Map<
    number,
    { resolve: (answer: Answer) => void; reject: (error: Error) => void }
  >();
  #lastId = 0;

  constructor() {
    this.#process = fork(process.argv[1] ?? '', [LOAD_PROCESS]);
    this.#process.on('message', (message) => {
      const answer = message as Answer;
      const waiting = this.#waiting.get(answer.id);
      this.#waiting.delete(answer.id);
      if (answer.error === undefined) waiting?.resolve(answer);
      else waiting?.reject(new Error(`load generator: ${answer.error}`));
    });
    this.#process.on('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('load generator: gone'));
    });
  }

  /** Connects to these exports, one connection each; tells how long each took. */
  async open(
    group: string,
    socketPath: string,
    exportNames: readonly string[],
  ): Promise<readonly number[]> {
    const answer = await this.#ask({ kind: 'open', group, socketPath, exportNames });
    return answer.opened ?? [];
  }

  /** Does the job on all connections of the group at the same time. */
  async run(group: string, job: LoadJob): Promise<readonly LoadResult[]> {
    const answer = await this.#ask({ kind: 'run', group, job });
    return answer.results ?? [];
  }

  close(): void {
    this.#process.disconnect();
  }

  #ask(command: Command): Promise<Answer> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#process.send({ id, command } satisfies Ask);
    });
  }
}
