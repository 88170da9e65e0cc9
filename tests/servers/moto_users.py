"""Makes a bucket and two users in a moto that checks credentials; prints their keys.

moto_users.py PORT POLICY    POLICY is the file with the policy of the second user

Start moto with INITIAL_NO_AUTH_ACTION_COUNT=7: that is how many requests this takes.
"""
import sys

import boto3

port, policy = sys.argv[1:3]
ALL = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
known = dict(
    endpoint_url=f'http://127.0.0.1:{port}',
    region_name='us-east-1',
    aws_access_key_id='x',
    aws_secret_access_key='y',
)
iam = boto3.client('iam', **known)
for user, rights in (('everything', ALL), ('least', open(policy).read())):
    iam.create_user(UserName=user)
    key = iam.create_access_key(UserName=user)['AccessKey']
    iam.put_user_policy(UserName=user, PolicyName='p', PolicyDocument=rights)
    print(key['AccessKeyId'], key['SecretAccessKey'])
boto3.client('s3', **known).create_bucket(Bucket='test')
