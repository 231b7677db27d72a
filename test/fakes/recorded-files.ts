/**
 * Files that write down every call, and rebuild what the disk may hold if the power goes after any of them: what was synced
 * is there; of the rest any part may be, sector by sector, name by name, in any order.
 */
import type { FileSystem, OpenFile } from '../../src-main/sessions/storage.ts';

interface Node {
  content: Buffer;
}

type Step =
  | { readonly does: 'write'; readonly node: Node; readonly position: number; readonly bytes: Buffer }
  | { readonly does: 'truncate'; readonly node: Node; readonly length: number }
  | { readonly does: 'sync'; readonly node: Node }
  /** `node` undefined: the name is gone. A rename is two names in one step. */
  | { readonly does: 'name'; readonly names: readonly (readonly [string, Node | undefined])[] }
  | { readonly does: 'syncFolder' };

/** What a disk writes all or nothing. */
const sectorBytes = 512;

const error = (code: string): Error => Object.assign(new Error(code), { code });

/** `take(share)`: whether a part that was not synced got onto the disk. */
export type Taking = (share?: number) => boolean;

export class RecordedFiles implements FileSystem {
  readonly steps: Step[] = [];
  private readonly names = new Map<string, Node>();
  private readonly before = new Map<string, { readonly node: Node; readonly content: Buffer }>();

  /** @param disk what stands there already, synced */
  constructor(disk: ReadonlyMap<string, Buffer> = new Map()) {
    for (const [name, content] of disk) {
      const node = { content };
      this.names.set(name, node);
      this.before.set(name, { node, content });
    }
  }

  async open(path: string, how: 'create' | 'replace' | 'update' | 'read'): Promise<OpenFile> {
    let node = this.names.get(path);
    if (how === 'create' && node) throw error('EEXIST');
    if ((how === 'update' || how === 'read') && !node) throw error('ENOENT');
    if (!node) {
      node = { content: Buffer.alloc(0) };
      this.name([[path, node]]);
    } else if (how === 'replace') this.truncate(node, 0);
    const file = node;
    return {
      write: async (bytes, position) => {
        this.steps.push({ does: 'write', node: file, position, bytes: Buffer.from(bytes) });
        file.content = written(file.content, position, bytes);
        return bytes.length;
      },
      read: async () => Buffer.from(file.content),
      truncate: async (length) => this.truncate(file, length),
      sync: async () => void this.steps.push({ does: 'sync', node: file }),
      close: async () => undefined,
    };
  }

  async rename(from: string, to: string): Promise<void> {
    const node = this.names.get(from);
    if (!node) throw error('ENOENT');
    this.name([
      [from, undefined],
      [to, node],
    ]);
  }

  async remove(path: string): Promise<void> {
    if (!this.names.has(path)) throw error('ENOENT');
    this.name([[path, undefined]]);
  }

  async syncFolder(): Promise<void> {
    this.steps.push({ does: 'syncFolder' });
  }

  /** What the disk holds if the power goes after the first `count` steps. */
  crash(count: number, take: Taking): Map<string, Buffer> {
    const done = this.steps.slice(0, count);
    const lastOf = (isSync: (step: Step) => boolean): number => done.findLastIndex(isSync);
    const names = new Map([...this.before].map(([name, { node }]) => [name, node]));
    const namesSafe = lastOf(({ does }) => does === 'syncFolder');
    for (const [i, step] of done.entries()) {
      if (step.does !== 'name' || (i > namesSafe && !take())) continue;
      for (const [name, node] of step.names) node ? names.set(name, node) : names.delete(name);
    }
    return new Map([...names].map(([name, node]) => [name, this.contentAfter(done, node, take)]));
  }

  private contentAfter(done: readonly Step[], node: Node, take: Taking): Buffer {
    const safe = done.findLastIndex((step) => step.does === 'sync' && step.node === node);
    const start = [...this.before.values()].find((known) => known.node === node);
    let content = start?.content ?? Buffer.alloc(0);
    for (const [i, step] of done.entries()) {
      if (!('node' in step) || step.node !== node) continue;
      const isSafe = i <= safe;
      if (step.does === 'truncate' && (isSafe || take())) content = content.subarray(0, step.length);
      if (step.does !== 'write') continue;
      if (isSafe) content = written(content, step.position, step.bytes);
      else {
        // The new length may get there without the data: then zeros stand there.
        const end = step.position + step.bytes.length;
        if (take() && end > content.length) content = Buffer.concat([content, Buffer.alloc(end - content.length)]);
        for (let at = 0; at < step.bytes.length; ) {
          const next = at + sectorBytes - ((step.position + at) % sectorBytes);
          if (take()) content = written(content, step.position + at, step.bytes.subarray(at, next));
          at = next;
        }
      }
    }
    return content;
  }

  private name(names: readonly (readonly [string, Node | undefined])[]): void {
    this.steps.push({ does: 'name', names });
    for (const [name, node] of names) node ? this.names.set(name, node) : this.names.delete(name);
  }

  private truncate(node: Node, length: number): void {
    this.steps.push({ does: 'truncate', node, length });
    node.content = node.content.subarray(0, length);
  }
}

function written(content: Buffer, position: number, bytes: Uint8Array): Buffer {
  const grown = Buffer.alloc(Math.max(content.length, position + bytes.length));
  content.copy(grown);
  grown.set(bytes, position);
  return grown;
}
