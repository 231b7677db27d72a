/** Files in memory that fail on command, and that forget what was not synced when the power goes. */
import type { FileSystem, OpenFile } from '../../src-main/sessions/storage.ts';

export type Operation = 'open' | 'write' | 'truncate' | 'sync' | 'rename' | 'remove' | 'syncFolder' | 'close';

const error = (code: string): Error => Object.assign(new Error(code), { code });

export class FakeFiles implements FileSystem {
  /** What a reader sees now. */
  readonly seen = new Map<string, Buffer>();
  /** What is left after a power loss: content by name, each only as far as it was synced. */
  readonly durable = new Map<string, Buffer>();
  readonly log: string[] = [];
  /** Called before every operation; returns an error code to fail it, or 'short' to write one byte only. */
  fault: (operation: Operation, path: string, count: number) => string | undefined = () => undefined;
  private synced = new WeakMap<object, Buffer>();
  private readonly nodes = new Map<string, { content: Buffer }>();
  private count = 0;

  put(path: string, content: Uint8Array): void {
    const node = { content: Buffer.from(content) };
    this.nodes.set(path, node);
    this.synced.set(node, node.content);
    this.seen.set(path, node.content);
    this.durable.set(path, node.content);
  }

  async open(path: string, how: 'create' | 'replace' | 'update' | 'read'): Promise<OpenFile> {
    this.step('open', path);
    const old = this.nodes.get(path);
    if (how === 'create' && old) throw error('EEXIST');
    if ((how === 'update' || how === 'read') && !old) throw error('ENOENT');
    const node = old && how !== 'replace' ? old : { content: Buffer.alloc(0) };
    this.nodes.set(path, node);
    this.seen.set(path, node.content);
    const change = (content: Buffer): void => {
      node.content = content;
      for (const [name, other] of this.nodes) if (other === node) this.seen.set(name, content);
    };
    return {
      write: async (bytes, position) => {
        const fault = this.step('write', path);
        const part = fault === 'short' ? bytes.subarray(0, 1) : bytes;
        const grown = Buffer.alloc(Math.max(node.content.length, position + part.length));
        node.content.copy(grown);
        grown.set(part, position);
        change(grown);
        return part.length;
      },
      read: async () => Buffer.from(node.content),
      truncate: async (length) => {
        this.step('truncate', path);
        change(node.content.subarray(0, length));
      },
      sync: async () => {
        this.step('sync', path);
        this.synced.set(node, node.content);
        for (const [name] of this.durable) if (this.nodes.get(name) === node) this.durable.set(name, node.content);
      },
      close: async () => void this.step('close', path),
    };
  }

  async rename(from: string, to: string): Promise<void> {
    this.step('rename', from);
    const node = this.nodes.get(from);
    if (!node) throw error('ENOENT');
    this.nodes.delete(from);
    this.seen.delete(from);
    this.nodes.set(to, node);
    this.seen.set(to, node.content);
  }

  async remove(path: string): Promise<void> {
    this.step('remove', path);
    if (!this.nodes.delete(path)) throw error('ENOENT');
    this.seen.delete(path);
  }

  /** Names become durable here; contents only as far as they were synced. */
  async syncFolder(path: string): Promise<void> {
    this.step('syncFolder', path);
    this.durable.clear();
    for (const [name, node] of this.nodes) this.durable.set(name, this.synced.get(node) ?? Buffer.alloc(0));
  }

  private step(operation: Operation, path: string): string | undefined {
    this.count += 1;
    this.log.push(`${operation} ${path}`);
    const fault = this.fault(operation, path, this.count);
    if (fault && fault !== 'short') throw error(fault);
    return fault;
  }
}
