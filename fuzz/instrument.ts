/**
 * Puts a counter into every block of a module: functions, branches, loops, cases, the arms of `?:`, `&&`, `||` and
 * `??`. Lines stay where they are.
 */

import { parseAst } from 'rolldown/parseAst'
import { COVERAGE_HOOK } from './coverage.ts'

interface Node {
  type: string
  start: number
  end: number
  [field: string]: unknown
}

/** The code with counters, and how many. */
export function instrument(code: string): { code: string; blocks: number } {
  const inserts: { at: number; text: string; order: number }[] = []
  let blocks = 0
  const put = (at: number, text: string, order: number): void => void inserts.push({ at, text, order })
  const count = (): string => `$c[${blocks++}]++`
  const statement = (node: Node | null | undefined): void => {
    if (!node) return
    if (node.type === 'BlockStatement') return put(node.start + 1, `${count()};`, 0)
    put(node.start, `{${count()};`, node.end)
    put(node.end, '}', node.start)
  }
  const expression = (node: Node): void => {
    put(node.start, `(${count()},`, node.end)
    put(node.end, ')', node.start)
  }
  const visit = (node: Node): void => {
    switch (node.type) {
      case 'FunctionDeclaration':
      case 'FunctionExpression':
        statement(node['body'] as Node | null)
        break
      case 'ArrowFunctionExpression': {
        const body = node['body'] as Node
        if (body.type === 'BlockStatement') statement(body)
        else expression(body)
        break
      }
      case 'IfStatement':
        statement(node['consequent'] as Node)
        statement(node['alternate'] as Node | null)
        break
      case 'ForStatement':
      case 'ForInStatement':
      case 'ForOfStatement':
      case 'WhileStatement':
      case 'DoWhileStatement':
      case 'CatchClause':
        statement(node['body'] as Node)
        break
      case 'SwitchCase': {
        const [first] = node['consequent'] as Node[]
        if (first) put(first.start, `${count()};`, Infinity)
        break
      }
      case 'ConditionalExpression':
        expression(node['consequent'] as Node)
        expression(node['alternate'] as Node)
        break
      case 'LogicalExpression':
        expression(node['right'] as Node)
        break
      default:
    }
    for (const value of Object.values(node))
      if (Array.isArray(value)) value.forEach((one) => isNode(one) && visit(one))
      else if (isNode(value)) visit(value)
  }
  visit(parseAst(code) as unknown as Node)
  // At one place: what ends goes before what begins; outer ones begin first (`order` is their end) and end last.
  inserts.sort((a, b) => a.at - b.at || sign(a.text) - sign(b.text) || b.order - a.order)
  let out = `const $c = globalThis.${COVERAGE_HOOK}(${blocks});`
  let at = 0
  for (const insert of inserts) {
    out += code.slice(at, insert.at) + insert.text
    at = insert.at
  }
  return { code: out + code.slice(at), blocks }
}

function sign(text: string): number {
  return text === '}' || text === ')' ? 0 : 1
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && typeof (value as Node).type === 'string'
}
