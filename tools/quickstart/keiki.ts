/**
 * The command line of the story: each command is shown as a reader can repeat it, then run, and
 * what it says is shown.
 *
 * 1. No setting of the user's own server is inherited.
 */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { resolve } from 'node:path';
import { type Folder, shorter } from './folder.js';
import { spawnBound } from './programs.js';
import type { Story } from './story.js';

const PROGRAM = resolve(import.meta.dirname, '../../bin/keiki');

export interface Ran {
  readonly code: number;
  /** What it wrote, standard error included, but where that was the terminal itself. */
  readonly text: string;
  readonly seconds: number;
}

export class Keiki {
  readonly #story: Story;
  readonly #environment: NodeJS.ProcessEnv = {};

  constructor(story: Story, folder: Folder) {
    this.#story = story;
    for (const key of Object.keys(process.env)) {
      if (key.startsWith('KEIKI_')) this.#environment[key] = undefined;
    }
    this.#environment.KEIKI_API = folder.socket('api.sock');
  }

  /** What a reader types before all others. */
  get environmentLine(): string {
    return `export KEIKI_API=${quote(this.#environment.KEIKI_API ?? '')}`;
  }

  /** The command as a reader can repeat it. */
  line(args: readonly string[]): string {
    return [shorter(PROGRAM), ...args].map(quote).join(' ');
  }

  spawn(args: readonly string[], { env, ...options }: SpawnOptions): ChildProcess {
    const environment = { ...this.#environment, ...env };
    return spawnBound(process.execPath, [PROGRAM, ...args], { ...options, env: environment });
  }

  /** Runs a command that must succeed; its progress, on a terminal, it shows itself. */
  async run(...args: readonly string[]): Promise<Ran> {
    const ran = await this.#run(args, this.#story.isTerminal ? 'inherit' : 'pipe');
    if (ran.code === 0) return ran;
    throw new Error(`${this.line(args)}: exit code ${ran.code}`);
  }

  /** Runs a command that may fail. */
  tryToRun(...args: readonly string[]): Promise<Ran> {
    return this.#run(args, 'pipe');
  }

  async #run(args: readonly string[], progress: 'inherit' | 'pipe'): Promise<Ran> {
    const start = performance.now();
    this.#story.command(this.line(args));
    const child = this.spawn(args, { stdio: ['ignore', 'pipe', progress] });
    const said: Buffer[] = [];
    child.stdout?.on('data', (chunk: Buffer) => said.push(chunk));
    child.stderr?.on('data', (chunk: Buffer) => said.push(chunk));
    const code = await new Promise<number>((done, reject) => {
      child.on('error', reject);
      child.on('close', (status) => done(status ?? 128));
    });
    const text = Buffer.concat(said).toString();
    this.#story.said(text);
    return { code, text, seconds: (performance.now() - start) / 1000 };
  }
}

/** As a shell takes it. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
