/** A line to an agent: the user's own ssh, with its config, keys, agent and known hosts. Asks, and tells when it breaks. */
import { spawn } from 'node:child_process';
import { expected, InputError } from '../contract/input-error.ts';
import { encodeFrame, frameReader } from '../worker/frames.ts';
import { lastWordsOf } from '../worker/spawn.ts';
import {
  type AgentCall,
  agentCalls,
  greeting,
  type InputOf,
  largestFrameBytes,
  type OutputOf,
  replySchema,
} from './protocol.ts';

export interface AgentAddress {
  /** As `ssh` takes it: a name of its config, a host, user@host. */
  readonly host: string;
  /** How FastMQA is called there, read by the shell of the server. */
  readonly command: string;
  /** In place of the user's own config of ssh. */
  readonly sshConfig?: string;
}

/** Nothing that ssh could take for an option. */
const hostPattern = /^[A-Za-z0-9_[][A-Za-z0-9_.:@%[\]-]{0,254}$/;

/** @throws InputError */
export function checkHost(host: string): void {
  if (!hostPattern.test(host)) throw expected('HOST or USER@HOST, as ssh knows it,', '--remote', host);
}

/** Longer than an agent ever waits before it answers; the first answer may wait for a passphrase to be typed. */
const answerSeconds = 60;
const greetingSeconds = 120;
/** What a server may print before the agent does. */
const mostChatterBytes = 64 * 1024;

/** The connection is gone. What was asked may be asked again over another. */
export class LineLost extends Error {}

interface Question {
  readonly call: AgentCall;
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export interface Line {
  /** @throws LineLost, or InputError with what the agent said */
  ask<Call extends AgentCall>(call: Call, input: InputOf<Call>): Promise<OutputOf<Call>>;
  close(): void;
}

/** Resolves when the agent has greeted. @throws LineLost with the last words of ssh */
export function openLine({ host, command, sshConfig }: AgentAddress): Promise<Line> {
  const config = sshConfig === undefined ? [] : ['-F', sshConfig];
  // Nothing of the user's desk is lent to the server, and no forwarding of the user's config is set up a second time.
  const options = ['-T', '-a', '-x', '-o', 'ClearAllForwardings=yes', '-o', 'ServerAliveInterval=10', ...config];
  const ssh = spawn('ssh', [...options, '--', host, `${command} agent --attach`], { stdio: ['pipe', 'pipe', 'pipe'] });
  const lastWords = lastWordsOf([ssh.stderr]);
  const questions = new Map<number, Question>();
  let [lastId, lost] = [0, false];

  return new Promise((resolve, reject) => {
    const lose = (why: string): void => {
      if (lost) return;
      lost = true;
      clearTimeout(patience);
      ssh.kill('SIGKILL');
      const error = new LineLost(why);
      reject(error);
      for (const { timer, reject } of questions.values()) {
        clearTimeout(timer);
        reject(error);
      }
      questions.clear();
    };
    const patience = setTimeout(
      () => lose(`no agent answered within ${greetingSeconds} s${lastWords()}`),
      greetingSeconds * 1000,
    );
    ssh.on('error', (error) => lose(`ssh cannot be started: ${error.message}`));
    ssh.on('close', (code, signal) =>
      lose(`ssh ended ${signal ? `by ${signal}` : `with exit code ${code}`}${lastWords()}`),
    );
    ssh.stdin.on('error', () => undefined); // told by its end

    const hear = (message: unknown): void => {
      const reply = replySchema.safeParse(message);
      if (!reply.success) {
        lose('the agent sent a message that cannot be understood');
        return;
      }
      const { data } = reply;
      const question = questions.get(data.id);
      if (!question) {
        lose('the agent answered a question that was not asked');
        return;
      }
      const value = data.ok ? agentCalls[question.call].output.safeParse(data.value) : undefined;
      if (value && !value.success) {
        lose(`the agent answered ${question.call} with an impossible value`);
        return;
      }
      questions.delete(data.id);
      clearTimeout(question.timer);
      if (value) question.resolve(value.data as never);
      else if (!data.ok) question.reject(new InputError(data.message, data.subject ?? '--remote'));
    };
    const line: Line = {
      ask: (call, input) =>
        new Promise((resolve, reject) => {
          if (lost) return reject(new LineLost('the connection is closed'));
          lastId += 1;
          const id = lastId;
          const timer = setTimeout(() => lose(`no answer within ${answerSeconds} s`), answerSeconds * 1000);
          questions.set(id, { call, resolve, reject, timer });
          ssh.stdin.write(encodeFrame({ id, call, input }));
        }),
      close: () => lose('the connection is closed'),
    };
    const read = frameReader(hear, largestFrameBytes);
    let chatter: Buffer | undefined = Buffer.alloc(0);
    ssh.stdout.on('data', (piece: Buffer) => {
      if (lost) return;
      if (!chatter) return read(piece);
      chatter = Buffer.concat([chatter, piece]);
      const at = chatter.indexOf(greeting);
      if (at === -1) {
        if (chatter.length > mostChatterBytes) lose('the server talks and no agent greets');
        return;
      }
      const rest = chatter.subarray(at + greeting.length);
      chatter = undefined;
      clearTimeout(patience);
      resolve(line);
      if (rest.length > 0) read(rest);
    });
  });
}
