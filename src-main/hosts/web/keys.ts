/** The secrets of one running web host. They exist in memory and in the browser that was let in, nowhere else. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

/** 256 bits; the promise is at least 192. */
const secretBytes = 32;

const newSecret = (): string => randomBytes(secretBytes).toString('base64url');
const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** In constant time, whatever the lengths: digests are compared, not texts. */
const isSame = (given: string, secret: string): boolean => timingSafeEqual(digest(given), digest(secret));

export class Keys {
  /** Two hosts on one machine share a cookie jar; their cookies must not overwrite each other. */
  readonly cookieName = `fastmqa-${randomBytes(6).toString('hex')}`;
  private readonly token = newSecret();
  private ticket = newSecret();

  /** The path of the one-time link. */
  get openPath(): string {
    return `/open?ticket=${this.ticket}`;
  }

  /** Takes a ticket in exchange for the cookie's value; each ticket once. */
  redeem(ticket: string): string | undefined {
    if (!isSame(ticket, this.ticket)) return undefined;
    this.ticket = newSecret();
    return this.token;
  }

  /** Whether a `Cookie` header holds our cookie, once, with the right value. */
  admits(header: string | undefined): boolean {
    const prefix = `${this.cookieName}=`;
    const ours = (header ?? '')
      .split(';')
      .map((pair) => pair.trim())
      .filter((pair) => pair.startsWith(prefix));
    return ours.length === 1 && isSame(ours[0].slice(prefix.length), this.token);
  }
}
