/**
 * What a store must and may hold after a power cut, from what its workload told until then.
 *
 * 1. An act that was answered has happened; one that was asked for may have.
 * 2. A write is durable when it was FUA and answered, or when a FLUSH was answered that was asked
 *    for after it was answered, of a vdisk in whose past it lies.
 * 3. A sector holds its last durable write or any later one that was asked for: never an older one.
 */
import { type Answer, type Step, stampOf, type WriteStep } from './story.js';
import type { Told } from './trace.js';

interface Write {
  readonly step: WriteStep;
  isAnswered: boolean;
  isDurable: boolean;
}

interface Disk {
  /** Writes in its past, then its own, in order. */
  readonly writes: Write[];
  /** Its making was answered. */
  isSure: boolean;
  /** Its deletion was asked for; its deletion was answered. */
  mayBeGone: boolean;
  isGone: boolean;
}

export class History {
  readonly #disks = new Map<string, Disk>();
  readonly #writes = new Map<number, Write>();
  readonly #asked = new Map<number, Step>();
  /** Writes that a FLUSH or consistency point under way makes durable when it is answered. */
  readonly #covered = new Map<number, Write[]>();
  isOpen = false;

  take({ text }: Told): void {
    const line = JSON.parse(text) as Step | Answer;
    if (line.step === 'answer') this.#answer(line.id);
    else this.#ask(line);
  }

  get names(): string[] {
    return [...this.#disks.keys()];
  }

  /** A fault for each vdisk that should be there, or should not. */
  compareNames(found: readonly string[]): string[] {
    const faults: string[] = [];
    for (const [name, { isSure, mayBeGone, isGone }] of this.#disks) {
      const isThere = found.includes(name);
      if (isSure && !mayBeGone && !isThere) faults.push(`${name} was made, and is not there`);
      if (isGone && isThere) faults.push(`${name} was deleted, and is there again`);
    }
    for (const name of found) {
      if (!this.#disks.has(name)) faults.push(`${name} is there, and nobody made it`);
    }
    return faults;
  }

  /** A fault for the first sector of the vdisk that is not what it may be. */
  compareContent(name: string, words: Uint32Array, sectors: number): string[] {
    const allowed = Array.from({ length: sectors }, () => [0]);
    for (const { step, isDurable } of (this.#disks.get(name) as Disk).writes) {
      const stamp = step.isTrim ? 0 : step.id;
      for (let sector = step.sector; sector < step.sector + step.sectors; sector++) {
        if (isDurable) allowed[sector] = [stamp];
        else allowed[sector]?.push(stamp);
      }
    }
    for (let sector = 0; sector < sectors; sector++) {
      const stamp = stampOf(words, sector, sector);
      const may = allowed[sector] as number[];
      if (stamp !== undefined && may.includes(stamp)) continue;
      const what = stamp === undefined ? 'parts of several writes' : `write ${stamp}`;
      return [`${name}: sector ${sector} holds ${what}, and may hold ${may.join(' or ')}`];
    }
    return [];
  }

  #ask(step: Step): void {
    this.#asked.set(step.id, step);
    if (step.step === 'write') {
      const write = { step, isAnswered: false, isDurable: false };
      this.#writes.set(step.id, write);
      this.#disks.get(step.vdisk)?.writes.push(write);
    } else if (step.step === 'create') {
      this.#disks.set(step.name, newDisk([]));
    } else if (step.step === 'snapshot' || step.step === 'clone') {
      this.#disks.set(step.name, newDisk(this.#disks.get(step.of ?? '')?.writes ?? []));
    } else if (step.step === 'delete') {
      (this.#disks.get(step.name) as Disk).mayBeGone = true;
    } else if (step.step === 'flush') {
      this.#cover(step.id, this.#disks.get(step.name)?.writes ?? []);
    } else if (step.step === 'point') {
      this.#cover(step.id, [...this.#writes.values()]);
    } else if (step.step === 'open') {
      this.isOpen = true;
    }
  }

  #cover(id: number, writes: readonly Write[]): void {
    const answered = writes.filter(({ isAnswered }) => isAnswered);
    this.#covered.set(id, answered);
  }

  #answer(id: number): void {
    const step = this.#asked.get(id) as Step;
    if (step.step === 'write') {
      const write = this.#writes.get(id) as Write;
      write.isAnswered = true;
      write.isDurable ||= step.fua;
    } else if (step.step === 'delete') {
      (this.#disks.get(step.name) as Disk).isGone = true;
    } else if (step.step === 'flush' || step.step === 'point') {
      for (const write of this.#covered.get(id) ?? []) write.isDurable = true;
    } else if (step.step !== 'split') {
      (this.#disks.get(step.name) as Disk).isSure = true;
    }
  }
}

function newDisk(past: readonly Write[]): Disk {
  return { writes: [...past], isSure: false, mayBeGone: false, isGone: false };
}
