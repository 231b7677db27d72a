/** A web host in a process of its own, and a browser reduced to its requests. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { CallName, InputOf, OutputOf, Reply } from '../../src-main/contract/calls.ts';
import type { HubEvent } from '../../src-main/contract/run-state.ts';
import { mainScript } from '../hosts/run-cli.ts';

export interface WebProgram {
  readonly child: ChildProcess;
  readonly output: () => { readonly stdout: string; readonly stderr: string };
  readonly link: string;
}

export async function startWeb(environment: Readonly<Record<string, string>>): Promise<WebProgram> {
  const child = spawn(process.execPath, [mainScript, 'serve', '--port', '0'], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const link = await new Promise<string>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      const found = /http:\S+\n/.exec(stdout);
      if (found) resolve(found[0].trim());
    });
    child.once('exit', () => reject(new Error(`the web host ended: ${stderr}`)));
  });
  return { child, link, output: () => ({ stdout, stderr }) };
}

export class WebClient {
  readonly origin: string;
  readonly cookie: string;
  private readonly stop = new AbortController();

  private constructor(origin: string, cookie: string) {
    this.origin = origin;
    this.cookie = cookie;
  }

  static async enter(link: string): Promise<WebClient> {
    const cookie = (await fetch(link)).headers.getSetCookie()[0]?.split(';')[0];
    if (!cookie) throw new Error('the link let nobody in');
    return new WebClient(new URL(link).origin, cookie);
  }

  async call<Name extends CallName>(name: Name, input: InputOf<Name>): Promise<OutputOf<Name>> {
    const response = await fetch(`${this.origin}/api/${name}`, {
      method: 'POST',
      headers: { Cookie: this.cookie, Origin: this.origin, 'Content-Type': 'application/json' },
      body: JSON.stringify(input),
    });
    const reply = (await response.json()) as Reply;
    if (!reply.ok) throw new Error(`${name}: ${reply.message}`);
    return reply.value as OutputOf<Name>;
  }

  /** Resolves when the stream is over, however it ends. */
  async listen(onEvents: (events: readonly HubEvent[]) => void, onReady: () => void): Promise<void> {
    try {
      const response = await fetch(`${this.origin}/api/events`, {
        headers: { Cookie: this.cookie },
        signal: this.stop.signal,
      });
      let text = '';
      const decoder = new TextDecoder();
      for await (const chunk of response.body ?? []) {
        text += decoder.decode(chunk as Uint8Array, { stream: true });
        const messages = text.split('\n\n');
        text = messages.pop() ?? '';
        for (const message of messages) {
          if (message.includes('event: ready')) onReady();
          else if (message.startsWith('data: ')) onEvents(JSON.parse(message.slice(6)) as HubEvent[]);
        }
      }
    } catch {
      // The host is gone, or nobody listens any more.
    }
  }

  close(): void {
    this.stop.abort();
  }
}

export async function killNow(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}
