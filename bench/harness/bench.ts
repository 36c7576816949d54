/** What a bench is. */
import type { Report } from './report.js';

export interface Bench {
  readonly name: string;
  /** The question that its figures answer, in one line. */
  readonly question: string;
  run(report: Report): Promise<void>;
  /**
   * A part that runs in a process of its own and ends with it, as a crash would:
   * `run.ts --prepare NAME PATH`.
   */
  prepare?(path: string): Promise<void>;
}
